// @ts-check
/** The charts of HTTP that services, pods and endpoints have alike. */

import { html } from "../core/html.js";
import { rate, step, within } from "../core/range.js";
import { ChartPanel } from "./chart.js";

/**
 * @typedef {object} Of
 * @property {string} view such as `service`
 * @property {string} prefix of its metrics
 * @property {string} where which one, in SQL
 */

/** @param {Of & {columns: string[]}} props */
export function seriesSql({ view, where, columns }) {
  return `SELECT
  ${["time_bucket", ...columns].join(",\n  ")}
FROM ${view}_${step.value.resolution}
WHERE ${where} AND ${within.value}
ORDER BY time_bucket`;
}

/** @param {Of} of */
export function HttpCharts(of) {
  const { prefix: p } = of;
  const latency = `${p}http_latency_ns_percentile`;
  return html`
    <${ChartPanel} id="requests" title="Requests answered" unit="per_minute" sql=${seriesSql({ ...of, columns: [
      `${rate(`${p}http_call_cpm`)} AS calls_per_minute`,
      `${rate(`(${p}http_call_cpm - coalesce(${p}http_success_cpm, 0))`)} AS failed_per_minute`,
    ] })} series=${[
      { key: "calls_per_minute", label: "all", isArea: true },
      { key: "failed_per_minute", label: "failed", colour: "bad", isArea: true },
    ]} />
    <${ChartPanel} id="latency" title="Latency" unit="ms" sql=${seriesSql({ ...of, columns: [
      `round(${latency}.p50 / 1e6, 3) AS p50_ms`, `round(${latency}.p90 / 1e6, 3) AS p90_ms`, `round(${latency}.p99 / 1e6, 3) AS p99_ms`,
    ] })} series=${[{ key: "p50_ms", label: "p50" }, { key: "p90_ms", label: "p90" }, { key: "p99_ms", label: "p99" }]} />
    <${ChartPanel} id="statuses" title="Answers by status" unit="per_minute" sql=${seriesSql({ ...of, columns: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(
      (one) => `${rate(`${p}http_status_${one}_cpm`)} AS status_${one}`,
    ) })} series=${[
      { key: "status_1xx", label: "1xx", colour: "line-5" },
      { key: "status_2xx", label: "2xx", colour: "line-1" },
      { key: "status_3xx", label: "3xx", colour: "line-4" },
      { key: "status_4xx", label: "4xx", colour: "poor" },
      { key: "status_5xx", label: "5xx", colour: "bad" },
    ]} />
    <${ChartPanel} id="sizes" title="Bodies, on average" unit="bytes" sql=${seriesSql({ ...of, columns: [
      `${p}http_avg_req_body_size AS request_bytes`, `${p}http_avg_resp_body_size AS response_bytes`,
    ] })} series=${[{ key: "request_bytes", label: "request" }, { key: "response_bytes", label: "response" }]} />`;
}

/** What one is over the whole range, as tiles take it. @param {Of} of @param {string} between */
export function totalsSql({ view, prefix: p, where }, between) {
  const latency = `${p}http_latency_ns_percentile`;
  return `SELECT
  round(${p}http_call_cpm / minutes, 1) AS calls_per_minute,
  round(100 * (${p}http_call_cpm - coalesce(${p}http_success_cpm, 0)) / nullif(${p}http_call_cpm, 0), 2) AS failed_percent,
  round(${latency}.p50 / 1e6, 3) AS p50_ms,
  round(${latency}.p99 / 1e6, 3) AS p99_ms
FROM ${view}_between(${between}, divide_by := 1)
WHERE ${where}`;
}
