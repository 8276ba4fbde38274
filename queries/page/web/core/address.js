// @ts-check
/** The address is the whole state: `#/view?name=value`. */

import { signal } from "../vendor/signals/signals.mjs";

/**
 * @typedef {Record<string, string>} Params
 * @typedef {{view: string, params: Params}} Address
 */

/** What stays when another view is opened. */
const COMMON = ["last", "from", "to", "vs", "tz", "live"];

/** @param {string} hash @returns {Address} */
export function read(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { view: path || "start", params: Object.fromEntries(new URLSearchParams(query)) };
}

/** @param {Address} to @returns {string} */
export function written({ view, params }) {
  const kept = Object.entries(params).filter(([, value]) => value !== "" && value != null);
  // Readable where it may be: these stand for themselves in a fragment.
  const query = kept
    .map(([name, value]) => `${name}=${encodeURIComponent(value).replace(/%(2F|3A|2C|40)/g, decodeURIComponent)}`)
    .join("&");
  return `#/${view}${query && `?${query}`}`;
}

export const address = signal(read(location.hash));

addEventListener("hashchange", () => {
  address.value = read(location.hash);
});

/**
 * Return the address of a view; what is common to all views is kept.
 * @param {string} view
 * @param {Params} [params]
 */
export function link(view, params = {}) {
  const now = address.value.params;
  const common = Object.fromEntries(COMMON.filter((name) => name in now).map((name) => [name, now[name]]));
  return written({ view, params: { ...common, ...params } });
}

/**
 * Return the address of this view with some parameters changed; "" takes one away.
 * @param {Params} changes
 */
export function changed(changes) {
  const { view, params } = address.value;
  return written({ view, params: { ...params, ...changes } });
}

/**
 * Change parameters of this view. What is typed letter by letter makes no history.
 * @param {Params} changes
 * @param {{replaces?: boolean}} [options]
 */
export function change(changes, { replaces = false } = {}) {
  const hash = changed(changes);
  if (hash === location.hash) return;
  if (replaces) {
    history.replaceState(null, "", hash);
    address.value = read(hash);
  } else {
    location.hash = hash;
  }
}
