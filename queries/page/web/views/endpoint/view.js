// @ts-check
/** One endpoint: what it answers, which endpoints call it, and which it calls. */

import { link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { between } from "../../core/range.js";
import { literal } from "../../core/sql.js";
import { HttpCharts } from "../../parts/http.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { failedTone, Table } from "../../parts/table.js";
import { Totals } from "../../parts/totals.js";

/** @param {{params: Record<string, string>}} props */
export function EndpointView({ params }) {
  const { service = "", endpoint = "" } = params;
  const of = {
    view: "endpoint",
    prefix: "kubernetes_service_endpoint_",
    where: `service = ${literal(service)} AND endpoint = ${literal(endpoint)}`,
  };
  return html`<h1>${endpoint}</h1>
    <p class="lead">An endpoint of <a href=${link("service", { service })}>${service}</a></p>
    <div class="panels">
      <${Totals} of=${of} />
      <${HttpCharts} ...${of} />
      <${Partners} id="callers" title="Requests that make it" me="dest" other="source" service=${service} endpoint=${endpoint} />
      <${Partners} id="callees" title="Requests that it makes" me="source" other="dest" service=${service} endpoint=${endpoint} />
    </div>`;
}

/** @param {{id: string, title: string, me: string, other: string, service: string, endpoint: string}} props */
function Partners({ id, title, me, other, service, endpoint }) {
  const answer = useAnswer(`SELECT
  ${other} AS service,
  ${other}_endpoint AS endpoint,
  derivation,
  calls_per_minute,
  round(100 - success_percent, 2) AS failed_percent,
  p99_ms
FROM endpoint_map(${between.value}, of_service := ${literal(service)})
WHERE ${me} = ${literal(service)} AND ${me}_endpoint = ${literal(endpoint)}
ORDER BY calls_per_minute DESC, service, endpoint`);
  return html`<${Panel} id=${id} title=${title} answer=${answer}>
    ${answer.table?.rows.length
      ? html`<${Table} id=${id} caption=${title} rows=${answer.table.rows} columns=${[
          { key: "service", label: "Service", href: (/** @type {any} */ row) => link("service", { service: row.service }) },
          { key: "endpoint", label: "Endpoint", href: (/** @type {any} */ row) => row.endpoint && link("endpoint", { service: row.service, endpoint: row.endpoint }) },
          { key: "derivation", label: "Known by" },
          { key: "calls_per_minute", label: "Calls", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "p99_ms", label: "p99", unit: "ms" },
        ]} />`
      : html`<${Nothing} answer=${answer}>None is known.<//>`}
  <//>`;
}
