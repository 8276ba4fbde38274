// @ts-check
/** Lines over time: drawn by uPlot, and the same numbers as a table for whoever cannot see them. */

import { useAnswer } from "../core/asking.js";
import { shift, useEarlier } from "../core/comparing.js";
import { shown, suffix, whole } from "../core/format.js";
import { html } from "../core/html.js";
import { msOf } from "../core/sql.js";
import { colour } from "../core/theme.js";
import { Nothing, Panel } from "./panel.js";
import { COLOURS, faded, Numbers, Plot, points, shownTimes } from "./plot.js";

/**
 * @typedef {{key: string, label: string, colour?: string, isArea?: boolean, isPast?: boolean}} Series
 * @typedef {import("../core/format.js").Unit} Unit
 */

const HEIGHT = 190;
/** @type {import("../core/asking.js").Row[]} */
const NONE = [];

/**
 * A panel with a chart of a query that gives `time_bucket` and a column for each series.
 * @param {{id: string, title: string, sql: string, series: Series[], unit: Unit, note?: any}} props
 */
export function ChartPanel({ id, title, sql, series, unit, note }) {
  const answer = useAnswer(sql);
  const earlier = useEarlier(sql);
  const rows = answer.table?.rows ?? NONE;
  const before = earlier?.table?.rows ?? NONE;
  const present = series.filter(({ key }) => [...rows, ...before].some((row) => row[key] !== null));
  return html`<${Panel} id=${id} title=${title} unit=${suffix(unit).replace("/", "per ")} answer=${answer} earlier=${earlier} note=${note}>
    ${present.length ? html`<${Lines} rows=${rows} before=${before} isCompared=${earlier !== null} series=${present} unit=${unit} title=${title} />` : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/**
 * @param {{rows: import("../core/asking.js").Row[], before: import("../core/asking.js").Row[], isCompared: boolean,
 *   series: Series[], unit: Unit, title: string}} props
 */
function Lines({ rows, before, isCompared, series: own, unit, title }) {
  const times = shownTimes();
  const back = shift.value;
  // Each keeps its colour: those of before are dashed.
  const coloured = own.map((one, at) => ({ ...one, colour: one.colour ?? COLOURS[at % COLOURS.length] }));
  const series = isCompared ? [...coloured, ...coloured.map((one) => ({ ...one, label: `${one.label}, before`, isArea: false, isPast: true }))] : coloured;
  const nowAt = new Map(rows.map((row) => [msOf(row.time_bucket), row]));
  const pastAt = new Map(before.map((row) => [msOf(row.time_bucket) + back, row]));
  const columns = series.map(({ key, isPast }) => times.map((at) => (isPast ? pastAt : nowAt).get(at)?.[key] ?? null));
  const draw = () => ({
    columns,
    series: series.map((one) => line(one, times, unit)),
    ends: (/** @type {number} */ low, /** @type {number} */ high) => ends(low, high, unit),
    shown: (/** @type {number} */ value) => shown(value, unit),
  });
  const has = (/** @type {number} */ at) => nowAt.has(at) || pastAt.has(at);
  return html`<${Plot} title=${title} times=${times} height=${HEIGHT} draw=${draw} of=${[rows, before, back, unit]} />
    <${Numbers} title=${title} heads=${series.map(({ label }) => label)} times=${times} columns=${columns} has=${has} />`;
}

/** @param {Series} one @param {number[]} times @param {Unit} unit */
function line(one, times, unit) {
  const stroke = colour(/** @type {string} */ (one.colour));
  return {
    // Below its own, in the same colour; the table says of what.
    label: one.isPast ? "before" : one.label,
    stroke,
    width: one.isPast ? 1.25 : 1.75,
    dash: one.isPast ? [5, 4] : undefined,
    alpha: one.isPast ? 0.75 : 1,
    points: one.isPast ? { show: false, stroke, fill: stroke } : points(times, stroke),
    fill: one.isArea ? faded(stroke) : undefined,
    value: (/** @type {any} */ _u, /** @type {any} */ value) => whole(value, unit),
  };
}

/** @param {number} low @param {number} high @param {Unit} unit @returns {[number, number]} */
export function ends(low, high, unit) {
  // A share near 100 is of interest for what it lacks.
  if (unit === "percent" && low > 50) return [Math.max(0, Math.floor(low - (100 - low) * 0.2 - 0.5)), 100];
  return [0, high > 0 ? high * 1.1 : 1];
}
