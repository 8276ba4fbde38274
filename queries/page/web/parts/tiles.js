// @ts-check
/** A few numbers in a row. */

import { html } from "../core/html.js";

/**
 * `before` are the same numbers of an earlier time, if there is one.
 * @typedef {{label: string, value: string, hint?: string, tone?: string}} Tile
 * @param {{items: Tile[], before?: Tile[] | null}} props
 */
export function Tiles({ items, before }) {
  return html`<dl class="tiles">
    ${items.map(({ label, value, hint, tone }, at) => html`<div key=${label} class=${tone ?? ""} title=${hint}><dt>${label}</dt><dd>${value}</dd>
      ${before && html`<dd class="before">was ${before[at].value}</dd>`}</div>`)}
  </dl>`;
}
