// @ts-check
/** Starts the page. */

import { render } from "./vendor/preact/preact.mjs";
import { html } from "./core/html.js";
import { App } from "./app.js";

const root = /** @type {HTMLElement} */ (document.getElementById("page"));
root.replaceChildren();
render(html`<${App} />`, root);
