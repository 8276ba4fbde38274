// @ts-check
/** Values over time: lines, areas and bars of a panel. Bars stand on each other. */

import { html } from "../../core/html.js";
import { colour } from "../../core/theme.js";
import { ends } from "../../parts/chart.js";
import { COLOURS, faded, Numbers, Plot, points, shownTimes } from "../../parts/plot.js";
import { commonUnit, valueShown, valueWhole } from "../units.js";

/**
 * @typedef {import("../model.js").Named} Named
 * @typedef {{label: string, unit: string, column: (number | null)[], top: (number | null)[], stroke: string}} Drawn
 */

const LEAST_HEIGHT = 120;

/** Status codes have colours that say what they are. */
const TONES = /** @type {Record<string, string>} */ ({ "1xx": "line-5", "2xx": "line-1", "3xx": "line-4", "4xx": "poor", "5xx": "bad", failed: "bad" });

/** @param {{title: string, kind: string, series: Named[], height: number}} props */
export function Chart({ title, kind, series, height }) {
  const times = shownTimes();
  const columns = series.map((one) => inBuckets(one, times));
  const draw = () => drawing(stacked(series, columns, kind === "Bar"), kind, times);
  const of = [JSON.stringify(columns), JSON.stringify(series.map(({ label, unit }) => [label, unit])), kind];
  const heads = series.map(({ label, unit }) => `${label}${unit && ` (${unit})`}`);
  const has = (/** @type {number} */ _at, /** @type {number} */ row) => columns.some((one) => one[row] !== null);
  return html`<${Plot} title=${title} times=${times} height=${Math.max(LEAST_HEIGHT, height)} draw=${draw} of=${of} />
    <${Numbers} title=${title} heads=${heads} times=${times} columns=${columns} has=${has} />`;
}

/** The rows of a chart, as a file has them. @param {Named[]} series @returns {import("../../core/asking.js").Table} */
export function rowsOf(series) {
  const ids = [...new Set(series.flatMap((one) => one.ids))].filter((id) => id !== null).sort();
  const names = series.map(({ label, unit }) => (unit ? `${label} (${unit})` : label));
  const byId = series.map((one) => new Map(one.ids.map((id, at) => [id, one.values[at]])));
  const rows = ids.map((id) => {
    const at = new Date(Number(id)).toISOString().slice(0, 19).replace("T", " ");
    return { time_bucket: at, ...Object.fromEntries(names.map((name, one) => [name, byId[one].get(id) ?? null])) };
  });
  const columns = [{ name: "time_bucket", type: "TIMESTAMP" }, ...names.map((name) => ({ name, type: "DOUBLE" }))];
  return { columns, rows, truncated: false };
}

/** @param {Named} series @param {number[]} times */
function inBuckets(series, times) {
  const byTime = new Map(series.ids.map((id, at) => [Number(id), series.values[at]]));
  return times.map((at) => byTime.get(at) ?? null);
}

/**
 * The tops of bars that stand on each other, the highest first, so that each covers what is over it.
 * @param {Named[]} series @param {(number | null)[][]} columns @param {boolean} isStacked @returns {Drawn[]}
 */
function stacked(series, columns, isStacked) {
  const below = (columns[0] ?? []).map(() => 0);
  const drawn = series.map((one, at) => {
    const top = columns[at].map((value, row) => {
      if (!isStacked || value === null) return value;
      below[row] += value;
      return below[row];
    });
    const name = TONES[one.label] ?? COLOURS[at % COLOURS.length];
    return { label: one.label, unit: one.unit, column: columns[at], top, stroke: colour(name) };
  });
  return isStacked ? drawn.reverse() : drawn;
}

/** @param {Drawn[]} drawn @param {string} kind @param {number[]} times @returns {import("../../parts/plot.js").Drawing} */
function drawing(drawn, kind, times) {
  const unit = commonUnit(drawn);
  const isBar = kind === "Bar";
  const bars = isBar ? /** @type {any} */ (window).uPlot.paths.bars({ size: [0.7, 40] }) : undefined;
  return {
    columns: drawn.map(({ top }) => top),
    series: drawn.map(({ label, unit: own, column, stroke }) => ({
      label,
      stroke,
      width: isBar ? 0 : 1.75,
      paths: bars,
      points: isBar ? { show: false } : points(times, stroke),
      fill: isBar ? stroke : kind === "Area" ? faded(stroke) : undefined,
      // Not the top of a bar, but what it has of itself.
      value: (/** @type {any} */ _u, /** @type {any} */ _v, /** @type {any} */ _s, /** @type {number | null} */ row) => (row === null || row === undefined ? "–" : valueWhole(column[row], own)),
    })),
    ends: (low, high) => (low < 0 ? [low * 1.1, Math.max(0, high * 1.1)] : ends(low, high, unit === "%" && !isBar ? "percent" : "number")),
    shown: (value) => valueShown(value, unit),
    isWide: isBar,
  };
}
