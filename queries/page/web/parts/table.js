// @ts-check
/** Tables: sorted by a click on a head, a page of rows first. */

import { address, change, changed } from "../core/address.js";
import { shown, suffix } from "../core/format.js";
import { html } from "../core/html.js";

/**
 * @typedef {import("../core/asking.js").Row} Row
 * @typedef {object} Column
 * @property {string} key
 * @property {string} label
 * @property {import("../core/format.js").Unit} [unit]
 * @property {(row: Row) => string | null} [href]
 * @property {(row: Row) => any} [cell]
 * @property {(row: Row) => string} [tone] a class by the value
 * @property {string} [hint]
 */

const NUMBERS = new Set(["count", "per_minute", "percent", "ms", "us", "bytes", "bytes_per_minute", "number", "plain"]);

/**
 * `earlier` are the same rows of an earlier time, which have the same in the columns `by`.
 * @param {{id: string, caption: string, columns: Column[], rows: Row[], page?: number,
 *   rowClass?: (row: Row) => string, by?: string[], earlier?: import("../core/asking.js").Answer | null}} props
 */
export function Table({ id, caption, columns, rows, page = 10, rowClass, by: names = [], earlier }) {
  const { params } = address.value;
  const [sortKey, order] = (params[`${id}.sort`] ?? "").split(":");
  const sorted = sortKey ? [...rows].sort(by(sortKey, order === "up")) : rows;
  const showsAll = params[`${id}.rows`] === "all";
  const keyOf = (/** @type {Row} */ row) => JSON.stringify(names.map((name) => row[name]));
  const before = earlier && new Map((earlier.table?.rows ?? []).map((row) => [keyOf(row), row]));
  const visible = showsAll ? sorted : sorted.slice(0, page);
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table id="${id}-table">
      <caption class="unseen">${caption}</caption>
      <thead><tr>${columns.map((column) => html`<${HeadCell} id=${id} column=${column} sortKey=${sortKey} order=${order} key=${column.key} />`)}</tr></thead>
      <tbody>
        ${visible.map(
          (row, at) => html`<tr key=${at} class=${rowClass?.(row)}>
            ${columns.map((column) => html`<${Cell} column=${column} row=${row} before=${before && (before.get(keyOf(row)) ?? {})} key=${column.key} />`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>
  ${rows.length > page &&
  html`<p class="more"><button type="button" onClick=${() => change({ [`${id}.rows`]: showsAll ? "" : "all" }, { replaces: true })}>
    ${showsAll ? `Show ${page}` : `Show all ${rows.length.toLocaleString("en-US")}`}</button></p>`}`;
}

/** @param {{id: string, column: Column, sortKey: string, order: string}} props */
function HeadCell({ id, column, sortKey, order }) {
  const isNumber = NUMBERS.has(column.unit ?? "");
  const isSorted = sortKey === column.key;
  const next = isSorted ? (order === "up" ? "down" : "up") : isNumber ? "down" : "up";
  const unit = suffix(column.unit);
  return html`<th scope="col" class=${isNumber ? "number" : ""} aria-sort=${isSorted ? (order === "up" ? "ascending" : "descending") : undefined}>
    ${column.label && html`<a href=${changed({ [`${id}.sort`]: `${column.key}:${next}` })} title=${column.hint ?? `Sort by ${column.label}`}>
      ${column.label}${unit && html` <span class="unit">${unit}</span>`}${isSorted ? (order === "up" ? " ↑" : " ↓") : ""}</a>`}
  </th>`;
}

/** @param {{column: Column, row: Row, before?: Row | null}} props */
function Cell({ column, row, before }) {
  const value = row[column.key];
  const text = column.cell ? column.cell(row) : shown(value, column.unit);
  const href = column.href?.(row);
  const isNumber = NUMBERS.has(column.unit ?? "");
  const kind = [isNumber ? "number" : "", column.tone?.(row) ?? ""].join(" ").trim();
  return html`<td class=${kind || undefined} title=${typeof text === "string" && text.length > 30 ? text : undefined}>
    ${href ? html`<a href=${href}>${text}</a>` : text}
    ${before && isNumber && html`<span class="before">was ${shown(before[column.key], column.unit)}</span>`}</td>`;
}

/** @param {string} key @param {boolean} isUp @returns {(a: Row, b: Row) => number} */
function by(key, isUp) {
  const sign = isUp ? 1 : -1;
  return (a, b) => {
    const [x, y] = [a[key], b[key]];
    // What is not there is neither much nor little.
    if (x === null || x === undefined) return y === null || y === undefined ? 0 : 1;
    if (y === null || y === undefined) return -1;
    if (x === y) return 0;
    return x < y ? -sign : sign;
  };
}

/** A tone for a share of what failed, in percent. @param {number | null} value */
export function failedTone(value) {
  if (value === null || value === undefined || value === 0) return "";
  return value >= 5 ? "bad" : value >= 1 ? "poor" : "";
}
