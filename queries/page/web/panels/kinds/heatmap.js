// @ts-check
/** How many values were how large, minute by minute: a histogram over time, as cells. */

import { useEffect, useRef, useState } from "../../vendor/preact/hooks.mjs";
import { asError, epoch } from "../../core/asking.js";
import { shown, time } from "../../core/format.js";
import { html } from "../../core/html.js";
import { range, step } from "../../core/range.js";
import { colour, isDark } from "../../core/theme.js";
import { askGraphql, duration } from "../asking.js";

/**
 * @typedef {{buckets: {min: string, max: string}[], values: {id: string, values: number[]}[]}} Cells
 * @typedef {{cells: Cells | null, error: any, isPending: boolean}} Answer
 */

const QUERY = `query ($c: MetricsCondition!, $d: Duration!) {
  h: readHeatMap(condition: $c, duration: $d) { buckets { min max } values { id values } }
}`;

/** @param {string} metric @param {import("../entity.js").GraphqlEntity} entity @returns {Answer} */
export function useHeatMap(metric, entity) {
  const [state, setState] = useState(/** @type {Answer} */ ({ cells: null, error: null, isPending: true }));
  const during = duration();
  const now = epoch.value;
  useEffect(() => {
    let isWanted = true;
    setState((/** @type {Answer} */ before) => ({ ...before, isPending: true }));
    askGraphql(QUERY, { c: { name: metric, entity }, d: during }).then(
      (data) => isWanted && setState({ cells: data.h, error: null, isPending: false }),
      (error) => isWanted && setState({ cells: null, error: asError(error), isPending: false }),
    );
    return () => {
      isWanted = false;
    };
  }, [metric, JSON.stringify([entity, during]), now]);
  return state;
}

/** @param {Cells} cells @returns {import("../../core/asking.js").Table} */
export function cellRows({ buckets, values }) {
  const rows = values.flatMap((column, at) => column.values.map((count, of) => ({ time_bucket: timeOf(at), from: buckets[of]?.min ?? "", to: buckets[of]?.max ?? "", count })));
  const columns = ["time_bucket", "from", "to", "count"].map((name) => ({ name, type: name === "count" ? "BIGINT" : "VARCHAR" }));
  return { columns, rows: rows.filter(({ count }) => count), truncated: false };
}

/** @param {number} at */
function msOf(at) {
  const { ms } = step.value;
  return Math.floor((range.value?.since ?? 0) / ms) * ms + at * ms;
}

/** @param {number} at */
function timeOf(at) {
  return new Date(msOf(at)).toISOString().slice(0, 19).replace("T", " ");
}

/** @param {{title: string, cells: Cells, height: number}} props */
export function HeatMap({ title, cells, height }) {
  const place = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const dark = isDark.value;
  const rows = cellRows(cells).rows;
  useEffect(() => draw(/** @type {HTMLCanvasElement} */ (place.current), cells), [cells, dark, height]);
  return html`<canvas class="cells" ref=${place} style=${{ height: `${height}px` }} role="img" aria-label="${title}; a table with its numbers follows"></canvas>
    <div class="unseen"><table class="numbers"><caption>${title}</caption>
      <thead><tr><th scope="col">time</th><th scope="col">from</th><th scope="col">to</th><th scope="col">count</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr><th scope="row">${shown(row.time_bucket, "time")}</th><td>${row.from}</td><td>${row.to}</td><td>${row.count}</td></tr>`)}</tbody>
    </table></div>`;
}

/** @param {HTMLCanvasElement} canvas @param {Cells} cells */
function draw(canvas, { buckets, values }) {
  const [width, height, left, below] = [canvas.clientWidth, canvas.clientHeight, 62, 22];
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const to = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  to.scale(devicePixelRatio, devicePixelRatio);
  const most = Math.max(1, ...values.flatMap((column) => column.values));
  const [wide, high] = [(width - left) / Math.max(1, values.length), (height - below) / Math.max(1, buckets.length)];
  to.fillStyle = colour("line-1");
  values.forEach((column, at) => column.values.forEach((count, of) => {
    if (!count) return;
    to.globalAlpha = 0.12 + (0.88 * Math.log1p(count)) / Math.log1p(most);
    to.fillRect(left + at * wide, height - below - (of + 1) * high, Math.max(1, wide - 1), Math.max(1, high - 1));
  }));
  to.globalAlpha = 1;
  to.fillStyle = colour("quiet");
  to.font = "12px system-ui";
  to.textBaseline = "middle";
  const every = Math.max(1, Math.ceil(14 / high));
  buckets.forEach(({ min }, of) => of % every === 0 && to.fillText(min, 4, height - below - (of + 0.5) * high));
  const each = Math.max(1, Math.ceil(64 / wide));
  values.forEach((_, at) => at % each === 0 && to.fillText(time(msOf(at)).slice(11), left + at * wide, height - below / 2));
}
