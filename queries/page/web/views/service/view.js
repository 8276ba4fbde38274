// @ts-check
/** One service: what it answers, who calls it, whom it calls, its endpoints and pods. */

import { link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { useEarlier } from "../../core/comparing.js";
import { html } from "../../core/html.js";
import { between, rate, sumRate } from "../../core/range.js";
import { literal } from "../../core/sql.js";
import { ChartPanel } from "../../parts/chart.js";
import { HttpCharts, seriesSql } from "../../parts/http.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { failedTone, Table } from "../../parts/table.js";
import { Totals } from "../../parts/totals.js";

const P = "kubernetes_service_";

/** @param {{params: Record<string, string>}} props */
export function ServiceView({ params }) {
  const service = params.service ?? "";
  const of = { view: "service", prefix: P, where: `service = ${literal(service)}` };
  const namespace = /\.([^.]+)$/.exec(service)?.[1];
  return html`<h1>${service}</h1>
    <p class="lead">A service. <a href=${link("map", { open: namespace ?? "", chosen: service })}>Show it on the map</a></p>
    <div class="panels">
      <${Totals} of=${of} />
      <${HttpCharts} ...${of} />
      <${Partners} id="callers" title="Who calls it" me="dest" other="source" service=${service} />
      <${Partners} id="callees" title="Whom it calls" me="source" other="dest" service=${service} />
      <${List} id="endpoints" title="Endpoints" macro="endpoints" name="endpoint" service=${service}
        href=${(/** @type {any} */ row) => link("endpoint", { service, endpoint: row.endpoint })} />
      <${List} id="pods" title="Pods" macro="instances" name="instance" service=${service}
        href=${(/** @type {any} */ row) => link("pod", { service, instance: row.instance })} />
      <${NetworkCharts} of=${of} />
    </div>`;
}

/** @param {{id: string, title: string, me: string, other: string, service: string}} props */
function Partners({ id, title, me, other, service }) {
  const sql = `SELECT
  ${other} AS service,
  calls_per_minute,
  round(100 - success_percent, 2) AS failed_percent,
  p99_ms
FROM service_map(${between.value}, of_service := ${literal(service)})
WHERE ${me} = ${literal(service)}
ORDER BY calls_per_minute DESC, service`;
  const [answer, earlier] = [useAnswer(sql), useEarlier(sql)];
  const edge = (/** @type {any} */ row) => link("edge", me === "dest" ? { source: row.service, dest: service } : { source: service, dest: row.service });
  return html`<${Panel} id=${id} title=${title} answer=${answer} earlier=${earlier}>
    ${answer.table?.rows.length
      ? html`<${Table} id=${id} by=${["service"]} earlier=${earlier} caption=${title} rows=${answer.table.rows} columns=${[
          { key: "service", label: "Service", href: (/** @type {any} */ row) => (row.service === "Unknown" ? link("unknown") : link("service", { service: row.service })) },
          { key: "calls_per_minute", label: "Calls", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "p99_ms", label: "p99", unit: "ms" },
          { key: "edge", label: "", href: edge, cell: () => "edge" },
        ]} />`
      : html`<${Nothing} answer=${answer}>No HTTP requests in this range.<//>`}
  <//>`;
}

/** @param {{id: string, title: string, macro: string, name: string, service: string, href: (row: any) => string}} props */
function List({ id, title, macro, name, service, href }) {
  const sql = `SELECT *, round(100 - success_percent, 2) AS failed_percent\nFROM ${macro}(${between.value}, of_service := ${literal(service)})`;
  const [answer, earlier] = [useAnswer(sql), useEarlier(sql)];
  return html`<${Panel} id=${id} title=${title} answer=${answer} earlier=${earlier}>
    ${answer.table?.rows.length
      ? html`<${Table} id=${id} by=${[name]} earlier=${earlier} caption=${title} rows=${answer.table.rows} columns=${[
          { key: name, label: title.replace(/s$/, ""), href },
          { key: "calls_per_minute", label: "Answered", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "average_ms", label: "Average", unit: "ms" },
          { key: "p99_ms", label: "p99", unit: "ms" },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** What the kernel saw. @param {{of: import("../../parts/http.js").Of}} props */
export function NetworkCharts({ of }) {
  const { prefix: p } = of;
  return html`
    <${ChartPanel} id="bytes" title="Bytes" unit="bytes_per_minute" sql=${seriesSql({ ...of, columns: [
      `${sumRate(`${p}write_package_size`)} AS sent`, `${sumRate(`${p}read_package_size`)} AS received`,
    ] })} series=${[{ key: "sent", label: "sent" }, { key: "received", label: "received" }]} />
    <${ChartPanel} id="packages" title="Packets sent" unit="per_minute" sql=${seriesSql({ ...of, columns: [
      `${sumRate(`${p}write_package_cpm`)} AS packages`, `${sumRate(`${p}write_retrains_package_cpm`)} AS retransmitted`,
    ] })} series=${[{ key: "packages", label: "all" }, { key: "retransmitted", label: "sent again", colour: "bad" }]} />
    <${ChartPanel} id="connections" title="Connections" unit="per_minute" sql=${seriesSql({ ...of, columns: [
      `${rate(`${p}connect_cpm`)} AS connects`,
      `${rate(`(${p}connect_cpm - coalesce(${p}connect_success_cpm, 0))`)} AS failed`,
      `${rate(`${p}accept_cpm`)} AS accepts`, `${rate(`${p}close_cpm`)} AS closes`,
    ] })} series=${[
      { key: "connects", label: "opened" }, { key: "failed", label: "failed to open", colour: "bad" },
      { key: "accepts", label: "accepted", colour: "line-3" }, { key: "closes", label: "closed", colour: "line-4" },
    ]} />
    <${ChartPanel} id="kernel" title="Time of one operation, on average" unit="us" sql=${seriesSql({ ...of, columns: [
      `round(${p}write_time / 1e3, 1) AS write_us`, `round(${p}read_time / 1e3, 1) AS read_us`,
    ] })} series=${[{ key: "write_us", label: "write (µs)" }, { key: "read_us", label: "read (µs)" }]} />`;
}
