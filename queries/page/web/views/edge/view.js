// @ts-check
/** One edge: is it the application, the socket, the kernel or the wire? */

import { address, changed, link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { useEarlier } from "../../core/comparing.js";
import { shown, suffix, whole } from "../../core/format.js";
import { html } from "../../core/html.js";
import { Bars } from "../../parts/bars.js";
import { ChartPanel } from "../../parts/chart.js";
import { Heat } from "../../parts/heat.js";
import { seriesSql } from "../../parts/http.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { failedTone, Table } from "../../parts/table.js";
import { Tiles } from "../../parts/tiles.js";
import { charts, layerBars, layersSql, ofPair, podsSql, requestBars, requestSql, tcpSql, totalsSql } from "./data.js";

/** @typedef {import("./data.js").Pair} Pair */

/** @param {{params: Record<string, string>}} props */
export function EdgeView({ params }) {
  const pair = { source: params.source ?? "", dest: params.dest ?? "" };
  const of = ofPair(pair);
  const sql = (/** @type {string[]} */ columns) => seriesSql({ ...of, columns });
  return html`<h1><${Name} service=${pair.source} /> → <${Name} service=${pair.dest} /></h1>
    <p class="lead">Who calls whom, from the request down to the device.
      ${" "}<a href=${link("edge", { source: pair.dest, dest: pair.source })}>The other way round</a></p>
    <div class="panels">
      <${Totals} pair=${pair} />
      <${Tcp} pair=${pair} />
      <${Request} pair=${pair} />
      <${Layers} pair=${pair} />
      <${ChartPanel} id="requests" title="Requests" unit="per_minute" sql=${sql(charts.requests())} series=${[
        { key: "by_caller", label: "seen by the caller" }, { key: "by_callee", label: "seen by the callee" },
        { key: "failed_by_caller", label: "failed, caller", colour: "bad" }, { key: "failed_by_callee", label: "failed, callee", colour: "poor" },
      ]} />
      <${ChartPanel} id="latency" title="Latency" unit="ms" sql=${sql(charts.latency())} series=${[
        { key: "client_p50_ms", label: "caller p50" }, { key: "client_p99_ms", label: "caller p99", colour: "line-4" },
        { key: "server_p50_ms", label: "callee p50", colour: "line-2" }, { key: "server_p99_ms", label: "callee p99", colour: "line-3" },
      ]} />
      <${ChartPanel} id="times" title="Time of one operation, on average" unit="us" sql=${sql(charts.times())} series=${[
        { key: "client_write_us", label: "caller writes (µs)" }, { key: "server_read_us", label: "callee reads (µs)" },
        { key: "server_write_us", label: "callee writes (µs)" }, { key: "client_read_us", label: "caller reads (µs)" },
      ]} />
      <${ChartPanel} id="bytes" title="Bytes" unit="bytes_per_minute" sql=${sql(charts.bytes())} series=${[
        { key: "there", label: "to the callee" }, { key: "back", label: "to the caller" },
      ]} />
      <${ChartPanel} id="retransmits" title="Packets sent again" unit="per_minute" sql=${sql(charts.retransmits())} series=${[
        { key: "by_caller", label: "by the caller" }, { key: "by_callee", label: "by the callee" },
      ]} />
      <${ChartPanel} id="connections" title="Connections" unit="per_minute" sql=${sql(charts.connections())} series=${[
        { key: "connects", label: "opened" }, { key: "failed", label: "failed to open", colour: "bad" }, { key: "accepts", label: "accepted", colour: "line-3" },
      ]} />
      <${PodMap} pair=${pair} />
      <${Pods} pair=${pair} />
    </div>`;
}

/** @param {{service: string}} props */
function Name({ service }) {
  return html`<a href=${service === "Unknown" ? link("unknown") : link("service", { service })}>${service}</a>`;
}

/** @param {{pair: Pair}} props */
function Totals({ pair }) {
  const [answer, earlier] = [useAnswer(totalsSql(pair)), useEarlier(totalsSql(pair))];
  const row = answer.table?.rows[0];
  return html`<${Panel} id="totals" title="Requests over the whole range" answer=${answer} earlier=${earlier}>
    ${row
      ? html`<${Tiles} items=${totalTiles(row)} before=${earlier && totalTiles(earlier.table?.rows[0] ?? {})} />`
      : html`<${Nothing} answer=${answer}>The two did not speak in this range.<//>`}
  <//>`;
}

/** @param {{pair: Pair}} props */
function Tcp({ pair }) {
  const [answer, earlier] = [useAnswer(tcpSql(pair)), useEarlier(tcpSql(pair))];
  const row = answer.table?.rows[0];
  return html`<${Panel} id="tcp" title="TCP, as the caller's end saw it" answer=${answer} earlier=${earlier}>
    ${row
      ? html`<${Tiles} items=${tcpTiles(row)} before=${earlier && tcpTiles(earlier.table?.rows[0] ?? {})} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** @param {{pair: Pair}} props */
function Request({ pair }) {
  const [answer, earlier] = [useAnswer(requestSql(pair)), useEarlier(requestSql(pair))];
  const row = answer.table?.rows[0];
  const bars = row ? requestBars(row) : [];
  return html`<${Panel} id="request" title="How long a request takes, and where" answer=${answer} earlier=${earlier}
      note="Between what the caller waited and what the callee's program worked lie both kernels, the queues and the wire.">
    ${bars.some(({ parts }) => parts[0].value !== null)
      ? html`<${Bars} caption="Time of a request" bars=${bars} before=${earlier?.table?.rows[0] && requestBars(earlier.table.rows[0])} unit="ms" />`
      : html`<${Nothing} answer=${answer}>No HTTP requests in this range.<//>`}
  <//>`;
}

/** @param {{pair: Pair}} props */
function Layers({ pair }) {
  const [answer, earlier] = [useAnswer(layersSql(pair)), useEarlier(layersSql(pair))];
  const bars = layerBars(answer.table?.rows ?? []);
  return html`<${Panel} id="layers" title="One operation, layer by layer" answer=${answer} earlier=${earlier}
      note="Shares of the time of one operation on average, in the order of a request's way. What is read passes the layers, and may wait in them, before the program asks for it.">
    ${bars.some(({ parts }) => parts.some(({ value }) => value !== null))
      ? html`<${Bars} caption="Time in each layer" bars=${bars} before=${earlier?.table && layerBars(earlier.table.rows)} unit="us" isShared=${true} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** @type {import("../../parts/heat.js").Measure[]} */
const MEASURES = [
  { key: "calls_per_minute", label: "Calls", unit: "per_minute", colour: "line-1", isCount: true },
  { key: "failed_percent", label: "Failed", unit: "percent", colour: "bad" },
  { key: "p99_ms", label: "p99", unit: "ms", colour: "line-4" },
  { key: "retransmitted", label: "Sent again", unit: "count", colour: "poor" },
];

/** Which pods: a slow one is a row or a column. @param {{pair: Pair}} props */
function PodMap({ pair }) {
  const answer = useAnswer(podsSql(pair));
  const measure = MEASURES.find(({ key }) => key === address.value.params.heat) ?? MEASURES[0];
  const rows = (answer.table?.rows ?? []).filter((row) => row.source_instance && row.dest_instance);
  return html`<${Panel} id="pod-map" class="wide" title="Pairs of pods" unit=${suffix(measure.unit).replace("/", "per ")} answer=${answer}>
    <p class="choices" role="group" aria-label="What the colours are">${MEASURES.map(
      (one) => html`<a key=${one.key} href=${changed({ heat: one === MEASURES[0] ? "" : one.key })} aria-current=${one === measure ? "true" : undefined}>${one.label}</a>`,
    )}</p>
    ${rows.length
      ? html`<${Heat} caption="Pairs of pods" rows=${rows} from="source_instance" to="dest_instance" weight="calls_per_minute" measure=${measure}
          href=${(/** @type {string} */ key, /** @type {string} */ instance) => (instance === "Unknown" ? null : link("pod", { service: key === "source_instance" ? pair.source : pair.dest, instance }))} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** @param {{pair: Pair}} props */
function Pods({ pair }) {
  const [answer, earlier] = [useAnswer(podsSql(pair)), useEarlier(podsSql(pair))];
  const pod = (/** @type {string} */ service, /** @type {string} */ key) => (/** @type {any} */ row) => (row[key] && row[key] !== "Unknown" ? link("pod", { service, instance: row[key] }) : null);
  return html`<${Panel} id="pods" class="wide" title="Pairs of pods, as a list" answer=${answer} earlier=${earlier}>
    ${answer.table?.rows.length
      ? html`<${Table} id="pods" by=${["source_instance", "dest_instance"]} earlier=${earlier} caption="Pairs of pods" page=${20} rows=${answer.table.rows} columns=${[
          { key: "source_instance", label: "From", href: pod(pair.source, "source_instance") },
          { key: "dest_instance", label: "To", href: pod(pair.dest, "dest_instance") },
          { key: "calls_per_minute", label: "Calls", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "p99_ms", label: "p99", unit: "ms" },
          { key: "request_bytes", label: "Sent", unit: "bytes" },
          { key: "response_bytes", label: "Received", unit: "bytes" },
          { key: "retransmitted", label: "Sent again", unit: "count" },
          { key: "seen_by", label: "Seen by" },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** @param {any} row */
function totalTiles(row) {
  return [
    { label: "Calls", value: whole(row.calls_per_minute, "per_minute") },
    { label: "Failed, seen by the caller", value: whole(row.failed_percent_by_caller, "percent"), tone: failedTone(row.failed_percent_by_caller) },
    { label: "Failed, seen by the callee", value: whole(row.failed_percent_by_callee, "percent"), tone: failedTone(row.failed_percent_by_callee) },
  ];
}

/** @param {any} row */
function tcpTiles(row) {
  const again = row.sent_packages ? (100 * (row.retransmitted_packages ?? 0)) / row.sent_packages : null;
  return [
    { label: "Sent", value: shown(row.sent_bytes, "bytes") },
    { label: "Received", value: shown(row.received_bytes, "bytes") },
    { label: "Sent again", value: whole(again, "percent"), tone: failedTone(again), hint: `${shown(row.retransmitted_packages, "count")} of ${shown(row.sent_packages, "count")} packets` },
    { label: "Connections opened", value: shown(row.connects, "count") },
    { label: "Failed to open", value: shown(row.failed_connects, "count"), tone: row.failed_connects ? "poor" : "" },
    { label: "Time to open", value: whole(row.connect_ms, "ms") },
  ];
}
