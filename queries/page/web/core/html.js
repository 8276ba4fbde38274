// @ts-check
/** Markup in template literals, for preact. */

import { h } from "../vendor/preact/preact.mjs";
import htm from "../vendor/htm/htm.mjs";
// Components that read signals are drawn again when these change.
import "../vendor/signals/signals.mjs";

export const html = htm.bind(h);
