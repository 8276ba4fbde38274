// @ts-check
/** Pairs as a table of colours: who calls down the side, who is called along the top. */

import { shown, whole } from "../core/format.js";
import { html } from "../core/html.js";

/** More than these along a side are not told apart by anybody; the list has all. */
const MOST = 40;
/** With more columns than this numbers have no room in a field. */
const MOST_NUMBERS = 14;

/**
 * @typedef {import("../core/asking.js").Row} Row
 * @typedef {{key: string, label: string, unit: import("../core/format.js").Unit, colour: string, isCount?: boolean}} Measure
 */

/**
 * `weight` is the column by which those are chosen that are shown.
 * @param {{caption: string, rows: Row[], from: string, to: string, weight: string, measure: Measure,
 *   href: (key: string, name: string) => string | null}} props
 */
export function Heat({ caption, rows, from, to, weight, measure, href }) {
  const [sources, dests] = [first(rows, from, weight), first(rows, to, weight)];
  const fields = new Map(rows.map((row) => [`${row[from]} ${row[to]}`, row]));
  const most = Math.max(...rows.map((row) => scaled(row[measure.key], measure)), Number.MIN_VALUE);
  const hasNumbers = dests.length <= MOST_NUMBERS;
  const [callers, called] = [shortened(sources), shortened(dests)];
  const left = new Set(rows.flatMap((row) => [`f ${row[from]}`, `t ${row[to]}`])).size - sources.length - dests.length;
  const name = (/** @type {string} */ key, /** @type {string} */ one, /** @type {string} */ text) => {
    const place = href(key, one);
    return place ? html`<a href=${place}>${text}</a>` : text;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
      <table class="heat ${hasNumbers ? "" : "dense"}">
        <caption class="unseen">${caption}: ${measure.label}</caption>
        <thead><tr><td class="corner">from ↓ to →</td>${dests.map((one, at) => html`<th scope="col" key=${one} title=${one}><span>${name(to, one, called[at])}</span></th>`)}</tr></thead>
        <tbody>${sources.map((source, at) => html`<tr key=${source}><th scope="row" title=${source}>${name(from, source, callers[at])}</th>
          ${dests.map((dest) => {
            const row = fields.get(`${source} ${dest}`);
            const value = row?.[measure.key];
            if (value === null || value === undefined) return html`<td key=${dest} class="none"></td>`;
            const share = Math.round(8 + 72 * (scaled(value, measure) / most));
            return html`<td key=${dest} style=${{ background: `color-mix(in srgb, var(--${measure.colour}) ${value ? share : 0}%, var(--surface))` }}
              title="${source} → ${dest}\n${whole(value, measure.unit)}"><span class=${hasNumbers ? "" : "unseen"}>${shown(value, measure.unit)}</span></td>`;
          })}</tr>`)}</tbody>
      </table>
    </div>
    ${left > 0 && html`<p class="note">The ${MOST} with the most calls of each side are shown, ${left} pods are not; the list has all.</p>`}`;
}

/** @param {number | null} value @param {Measure} measure */
function scaled(value, measure) {
  // One busy pair must not make all others look idle.
  return measure.isCount ? Math.log1p(value ?? 0) : (value ?? 0);
}

/** Those with the most, by name. @param {Row[]} rows @param {string} key @param {string} weight @returns {string[]} */
function first(rows, key, weight) {
  /** @type {Map<string, number>} */
  const sums = new Map();
  for (const row of rows) sums.set(row[key], (sums.get(row[key]) ?? 0) + (row[weight] ?? 0));
  return [...sums].sort((a, b) => b[1] - a[1]).slice(0, MOST).map(([one]) => one).sort();
}

/** Names without what all begin with. @param {string[]} names */
function shortened(names) {
  if (names.length < 2) return names;
  let common = names[0];
  for (const one of names) while (!one.startsWith(common)) common = common.slice(0, -1);
  const cut = Math.max(common.lastIndexOf("-"), common.lastIndexOf(".")) + 1;
  return cut ? names.map((one) => `…${one.slice(cut)}`) : names;
}
