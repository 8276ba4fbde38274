// @ts-check
/** The start: is it fresh, what is lost, and where to look first. */

import { link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { useEarlier } from "../../core/comparing.js";
import { length, shown, time } from "../../core/format.js";
import { html } from "../../core/html.js";
import { between, now, range, rate, stored, step, within } from "../../core/range.js";
import { namespaceOf, percent } from "../../core/sql.js";
import { ChartPanel } from "../../parts/chart.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { failedTone, Table } from "../../parts/table.js";
import { Tiles } from "../../parts/tiles.js";

const CALLS = "kubernetes_service_http_call_cpm";
const GOOD = "kubernetes_service_http_success_cpm";
const LATENCY = "kubernetes_service_http_latency_ns_percentile";
const R = "kubernetes_service_relation_";
/** @typedef {import("../../core/asking.js").Answer} Answer */

/** Fewer requests than this a minute tell little about a share or a percentile. */
const LEAST_CALLS = 1;

export function StartView() {
  return html`<h1 class="unseen">Start</h1>
    <${Health} />
    <div class="panels">
      <${ChartPanel} id="requests" title="Requests answered" unit="per_minute" sql=${requestsSql()} series=${[
        { key: "calls_per_minute", label: "all", isArea: true },
        { key: "failed_per_minute", label: "failed", colour: "bad", isArea: true },
      ]} />
      <${Services} />
      <${WorstEdges} />
      <${Changes} />
    </div>`;
}

function requestsSql() {
  return `SELECT
  time_bucket,
  sum(${rate(CALLS)}) AS calls_per_minute,
  sum(${rate(`(${CALLS} - coalesce(${GOOD}, 0))`)}) AS failed_per_minute
FROM service_${step.value.resolution}
WHERE ${within.value}
GROUP BY time_bucket
ORDER BY time_bucket`;
}

function Health() {
  const answer = useAnswer(`SELECT
  kind,
  name,
  sum(count)::BIGINT AS logs
FROM dropped
GROUP BY kind, name
ORDER BY kind, logs DESC, name`);
  const rows = answer.table?.rows ?? [];
  const sum = (/** @type {(row: any) => boolean} */ is) => rows.filter(is).reduce((total, row) => total + row.logs, 0);
  const read = sum(({ kind }) => kind === "logs");
  const lost = sum(({ kind, name }) => kind === "dropped" && name !== "same_service");
  const late = sum(({ name }) => /late|clock|ahead/.test(name));
  const unnamed = sum(({ kind, name }) => kind === "addresses" && name === "unknown");
  const named = sum(({ kind, name }) => kind === "addresses" && name === "known");
  const { since, until } = /** @type {{since: number, until: number}} */ (stored.value);
  return html`<${Panel} id="health" class="wide" title="What there is" answer=${answer}>
    <${Tiles} items=${[
      { label: "Newest minute ended", value: time(until), hint: `${length(now.value - until)} ago` },
      { label: "Oldest minute", value: time(since) },
      { label: "Logs read", value: shown(read, "count") },
      { label: "Lost", value: shown(lost, "count"), tone: lost ? "poor" : "", hint: "Logs that were dropped; those of a service that calls itself are left out on purpose, and not counted here" },
      { label: "Late or ahead", value: shown(late, "count"), tone: late ? "poor" : "", hint: "Logs whose time does not go with their arrival" },
      { label: "Addresses without a name", value: named + unnamed ? `${shown((100 * unnamed) / (named + unnamed), "percent")}%` : "–", hint: "Of all that were looked up" },
    ]} />
    <details>
      <summary>Every counter, since this store began</summary>
      ${rows.length
        ? html`<${Table} id="health" caption="Counters" page=${30} rows=${rows} columns=${[
            { key: "kind", label: "Kind" },
            { key: "name", label: "Name" },
            { key: "logs", label: "Count", unit: "count" },
          ]} />`
        : html`<${Nothing} answer=${answer} />`}
    </details>
  <//>`;
}

/**
 * Services and namespaces are one statement: most of what it costs is that it is made ready.
 * A row without a service is of its namespace.
 */
function servicesSql() {
  return `WITH own AS (
  SELECT
    service,
    ${namespaceOf("service")} AS namespace,
    minutes,
    ${CALLS} AS calls,
    ${CALLS} - coalesce(${GOOD}, 0) AS failed,
    p99 AS p99_ns
  FROM service_between(${between.value}, divide_by := 1)
  LEFT JOIN service_percentiles_between(${between.value}, '${LATENCY}') USING (service)
  WHERE service <> 'Unknown'
)
SELECT
  namespace,
  service,
  count(*) AS services,
  round(coalesce(sum(calls), 0) / any_value(minutes), 1) AS calls_per_minute,
  ${percent("sum(failed)", "sum(calls)")} AS failed_percent,
  round(max(p99_ns) / 1e6, 2) AS p99_ms,
  arg_max(service, p99_ns) AS slowest_service
FROM own
GROUP BY GROUPING SETS ((namespace), (namespace, service))
ORDER BY failed_percent DESC NULLS LAST, p99_ms DESC NULLS LAST, namespace, service`;
}

/** The rows of an answer that are wanted. @param {Answer} answer @param {(row: any) => boolean} is @returns {Answer} */
function only(answer, is) {
  return answer.table ? { ...answer, table: { ...answer.table, rows: answer.table.rows.filter(is) } } : answer;
}

function Services() {
  const sql = servicesSql();
  const [answer, earlier] = [useAnswer(sql), useEarlier(sql)];
  return html`<${Namespaces} answer=${only(answer, (row) => row.service === null)} earlier=${earlier && only(earlier, (row) => row.service === null)} />
    <${WorstServices} answer=${only(answer, (row) => row.service !== null && row.calls_per_minute >= LEAST_CALLS)} earlier=${earlier} />`;
}

/** @param {{answer: Answer, earlier: Answer | null}} props */
function Namespaces({ answer, earlier }) {
  const rows = [...(answer.table?.rows ?? [])].sort((a, b) => b.calls_per_minute - a.calls_per_minute);
  return html`<${Panel} id="namespaces" title="Namespaces" answer=${answer} earlier=${earlier}>
    ${rows.length
      ? html`<${Table} id="namespaces" by=${["namespace"]} earlier=${earlier} caption="Namespaces" rows=${rows} columns=${[
          { key: "namespace", label: "Namespace", href: (/** @type {any} */ row) => link("map", { open: row.namespace }), cell: (/** @type {any} */ row) => (row.namespace === "-" ? "no namespace" : row.namespace) },
          { key: "services", label: "Services", unit: "count" },
          { key: "calls_per_minute", label: "Answered", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "p99_ms", label: "p99", unit: "ms", hint: "Of its services the slowest one: percentiles do not add up" },
          { key: "slowest_service", label: "slowest", href: (/** @type {any} */ row) => row.slowest_service && link("service", { service: row.slowest_service }) },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** @param {{answer: Answer, earlier: Answer | null}} props */
function WorstServices({ answer, earlier }) {
  return html`<${Panel} id="worst-services" title="Services: most failures, then slowest" answer=${answer} earlier=${earlier}>
    ${answer.table?.rows.length
      ? html`<${Table} id="worst-services" by=${["service"]} earlier=${earlier} caption="Services with the most failures" rows=${answer.table.rows} columns=${[
          { key: "service", label: "Service", href: (/** @type {any} */ row) => link("service", { service: row.service }) },
          { key: "calls_per_minute", label: "Answered", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "p99_ms", label: "p99", unit: "ms" },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** Each as the end saw it that saw more of the calls; without percentiles, which cost most of all. */
function edgesSql() {
  const seen = (/** @type {string} */ metric) => `CASE WHEN by_callee THEN ${R}server_${metric} ELSE ${R}client_${metric} END`;
  return `WITH seen AS (
  SELECT
    source_service AS source,
    dest_service AS dest,
    minutes,
    coalesce(${R}server_http_call_cpm, 0) >= coalesce(${R}client_http_call_cpm, 0) AS by_callee,
    ${seen("http_call_cpm")} AS calls,
    ${seen("http_success_cpm")} AS succeeded,
    ${seen("http_call_time")} AS average_ms
  FROM service_relation_between(${between.value}, divide_by := 1)
  WHERE source_service <> 'Unknown'
    AND dest_service <> 'Unknown'
)
SELECT
  source,
  dest,
  round(calls / minutes, 1) AS calls_per_minute,
  ${percent("calls - coalesce(succeeded, 0)", "calls")} AS failed_percent,
  average_ms
FROM seen
WHERE calls >= ${LEAST_CALLS} * minutes
ORDER BY failed_percent DESC, average_ms DESC, source, dest
LIMIT 100`;
}

function WorstEdges() {
  const sql = edgesSql();
  const [answer, earlier] = [useAnswer(sql), useEarlier(sql)];
  return html`<${Panel} id="worst-edges" title="Edges: most failures, then slowest" answer=${answer} earlier=${earlier}>
    ${answer.table?.rows.length
      ? html`<${Table} id="worst-edges" by=${["source", "dest"]} earlier=${earlier} caption="Edges with the most failures" rows=${answer.table.rows} columns=${[
          { key: "source", label: "From", href: (/** @type {any} */ row) => link("edge", { source: row.source, dest: row.dest }) },
          { key: "dest", label: "To", href: (/** @type {any} */ row) => link("edge", { source: row.source, dest: row.dest }) },
          { key: "calls_per_minute", label: "Calls", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "average_ms", label: "Average", unit: "ms" },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

function Changes() {
  const { since } = /** @type {{since: number}} */ (range.value);
  const hasBefore = /** @type {{since: number}} */ (stored.value).since < since;
  const answer = useAnswer(hasBefore ? `FROM changes(${between.value})\nLIMIT 100` : null);
  const rows = (answer.table?.rows ?? []).filter((row) => row.calls_per_minute_before !== null);
  return html`<${Panel} id="changes" class="wide" title="What changed" answer=${hasBefore ? answer : undefined}
      note="Each service beside itself in the time of the same length before; what went from good to bad most comes first.">
    ${rows.length
      ? html`<${Table} id="changes" caption="Services beside themselves before" rows=${rows} columns=${[
          { key: "service", label: "Service", href: (/** @type {any} */ row) => link("service", { service: row.service }) },
          { key: "calls_per_minute_before", label: "Answered before", unit: "per_minute" },
          { key: "calls_per_minute", label: "now", unit: "per_minute" },
          { key: "success_percent_before", label: "Succeeded before", unit: "percent" },
          { key: "success_percent", label: "now", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.success_percent_before - row.success_percent > 0 ? row.success_percent_before - row.success_percent : 0) },
          { key: "p99_ms_before", label: "p99 before", unit: "ms" },
          { key: "p99_ms", label: "now", unit: "ms", tone: (/** @type {any} */ row) => (row.p99_ms > 2 * row.p99_ms_before ? "poor" : "") },
        ]} />`
      : html`<${Nothing} answer=${{ ...answer, isPending: hasBefore && answer.isPending }}>Nothing is stored of the time of the same length before.<//>`}
  <//>`;
}
