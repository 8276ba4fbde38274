// @ts-check
/** What charts over time have in common: uPlot in its place, axes and zoom, and the numbers as a table. */

import { useEffect, useRef } from "../vendor/preact/hooks.mjs";
import { change } from "../core/address.js";
import { isLocal, parts, time } from "../core/format.js";
import { html } from "../core/html.js";
import { range, step } from "../core/range.js";
import { colour, isDark } from "../core/theme.js";

/**
 * @typedef {(number | null)[]} Column
 * @typedef {object} Drawing
 * @property {Column[]} columns a value for each of the times
 * @property {object[]} series of uPlot, one for each column
 * @property {(low: number, high: number) => [number, number]} ends of the scale of values
 * @property {(value: number) => string} shown what stands at that scale
 * @property {boolean} [isWide] whether the first and the last need room at their sides
 */

export const COLOURS = ["line-1", "line-2", "line-3", "line-4", "line-5", "line-6", "line-7", "line-8"];
/** From tick to tick: whole minutes, as there is nothing between. */
const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440, 2_880, 10_080, 43_200].map((minutes) => minutes * 60);
/** Charts of one page share the place of the pointer. */
const SYNC = "framewalk";
const FEW_TIMES = 60;

/** The times of the buckets in the range that is shown. @returns {number[]} */
export function shownTimes() {
  const { since, until } = /** @type {{since: number, until: number}} */ (range.value);
  const { ms } = step.value;
  const found = [];
  for (let at = Math.floor(since / ms) * ms; at < until; at += ms) found.push(at);
  return found;
}

/**
 * A chart of `shownTimes`; it is drawn again where something of `of` changes.
 * @param {{title: string, times: number[], height: number, draw: () => Drawing, of: any[]}} props
 */
export function Plot({ title, times, height, draw, of }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const { since, until } = /** @type {{since: number, until: number}} */ (range.value);
  const { ms } = step.value;
  useEffect(() => {
    const holder = /** @type {HTMLElement} */ (place.current);
    const drawing = draw();
    const data = [times.map((at) => at / 1000), ...drawing.columns];
    const plot = new /** @type {any} */ (window).uPlot(options(holder, times, ms, height, drawing), data, holder);
    const watch = new ResizeObserver(() => plot.setSize({ width: holder.clientWidth, height }));
    watch.observe(holder);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
  }, [...of, isLocal(), isDark.value, since, until, ms, height]);
  return html`<div class="chart" ref=${place} role="img" aria-label="${title}; a table with its numbers follows"></div>`;
}

/**
 * The same numbers for whoever cannot see them, of those times that have some.
 * @param {{title: string, heads: string[], times: number[], columns: Column[], has: (at: number, row: number) => boolean}} props
 */
export function Numbers({ title, heads, times, columns, has }) {
  return html`<div class="unseen"><table class="numbers">
      <caption>${title}</caption>
      <thead><tr><th scope="col">time</th>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
      <tbody>${times.map((at, row) => has(at, row) && html`<tr><th scope="row">${time(at)}</th>${columns.map((one) => html`<td>${one[row] ?? ""}</td>`)}</tr>`)}</tbody>
    </table></div>`;
}

/** A line of one or two points is hardly one. @param {number[]} times @param {string} stroke */
export function points(times, stroke) {
  return { ...(times.length <= FEW_TIMES ? { size: 5 } : { show: false }), stroke, fill: stroke };
}

/** The colour of what is below a line. @param {string} stroke */
export function faded(stroke) {
  return stroke.replace("rgb(", "rgba(").replace(")", ", 0.14)");
}

/** @param {HTMLElement} holder @param {number[]} times @param {number} ms @param {number} height @param {Drawing} drawing */
function options(holder, times, ms, height, { series, ends, shown, isWide }) {
  const ink = colour("quiet");
  const grid = { stroke: colour("grid"), width: 1 };
  const spansDays = times.length * ms > 86_400_000;
  const half = isWide ? ms / 2_000 : 0;
  return {
    width: holder.clientWidth,
    height,
    cursor: { sync: { key: SYNC }, points: { size: 7 }, drag: { x: true, y: false, setScale: false } },
    select: { show: true },
    scales: {
      x: { time: true, range: () => [times[0] / 1000 - half, Math.max(times[times.length - 1], times[0] + ms) / 1000 + half] },
      y: { range: (/** @type {any} */ _u, /** @type {number} */ low, /** @type {number} */ high) => ends(low, high) },
    },
    axes: [
      { stroke: ink, grid, ticks: grid, font: "12px system-ui", space: 64, incrs: TICKS_S, values: (/** @type {any} */ _u, /** @type {number[]} */ all) => all.map((at) => tick(at * 1000, spansDays)) },
      { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui", size: 62, gap: 4, values: (/** @type {any} */ _u, /** @type {number[]} */ all) => all.map((one) => (one === null ? "" : shown(one))) },
    ],
    series: [{ label: "", value: (/** @type {any} */ _u, /** @type {number | null} */ at) => (at === null ? "" : time(at * 1000)) }, ...series],
    hooks: { setSelect: [(/** @type {any} */ plot) => zoom(plot, ms)] },
  };
}

/** @param {number} ms @param {boolean} spansDays */
function tick(ms, spansDays) {
  const { day, clock } = parts(ms);
  return spansDays && clock === "00:00" ? day.slice(5) : clock;
}

/** @param {any} plot @param {number} ms */
function zoom(plot, ms) {
  if (plot.select.width < 8) return;
  const at = (/** @type {number} */ x) => plot.posToVal(x, "x") * 1000;
  const from = Math.floor(at(plot.select.left) / ms) * ms;
  const to = Math.ceil(at(plot.select.left + plot.select.width) / ms) * ms;
  const written = (/** @type {number} */ one) => new Date(one).toISOString().slice(0, 16);
  change({ from: written(from), to: written(to), last: "" });
}
