// @ts-check
/** One pod: what it answers, and with which pods it speaks. */

import { link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { between } from "../../core/range.js";
import { literal, percent } from "../../core/sql.js";
import { HttpCharts } from "../../parts/http.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { failedTone, Table } from "../../parts/table.js";
import { Totals } from "../../parts/totals.js";
import { NetworkCharts } from "../service/view.js";

const R = "kubernetes_service_instance_relation_";

/** @param {{params: Record<string, string>}} props */
export function PodView({ params }) {
  const { service = "", instance = "" } = params;
  const of = {
    view: "service_instance",
    prefix: "kubernetes_service_instance_",
    where: `service = ${literal(service)} AND instance = ${literal(instance)}`,
  };
  return html`<h1>${instance}</h1>
    <p class="lead">A pod of <a href=${link("service", { service })}>${service}</a></p>
    <div class="panels">
      <${Totals} of=${of} />
      <${HttpCharts} ...${of} />
      <${Partners} id="callers" title="Pods that call it" me="dest" other="source" service=${service} instance=${instance} />
      <${Partners} id="callees" title="Pods that it calls" me="source" other="dest" service=${service} instance=${instance} />
      <${NetworkCharts} of=${of} />
    </div>`;
}

/** @param {{id: string, title: string, me: string, other: string, service: string, instance: string}} props */
function Partners({ id, title, me, other, service, instance }) {
  const side = me === "dest" ? "server" : "client";
  const answer = useAnswer(`SELECT
  ${other}_service AS service,
  ${other}_instance AS instance,
  round(${R}${side}_http_call_cpm / minutes, 1) AS calls_per_minute,
  ${percent(`${R}${side}_http_call_cpm - coalesce(${R}${side}_http_success_cpm, 0)`, `${R}${side}_http_call_cpm`)} AS failed_percent,
  round(${R}${side}_http_latency_ns_percentile.p99 / 1e6, 2) AS p99_ms
FROM service_instance_relation_between(${between.value}, divide_by := 1)
WHERE ${me}_service = ${literal(service)} AND ${me}_instance = ${literal(instance)}
ORDER BY calls_per_minute DESC NULLS LAST, service, instance`);
  return html`<${Panel} id=${id} title=${title} answer=${answer}>
    ${answer.table?.rows.length
      ? html`<${Table} id=${id} caption=${title} rows=${answer.table.rows} columns=${[
          { key: "service", label: "Service", href: (/** @type {any} */ row) => link("service", { service: row.service }) },
          { key: "instance", label: "Pod", href: (/** @type {any} */ row) => link("pod", { service: row.service, instance: row.instance }) },
          { key: "calls_per_minute", label: "Calls", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "p99_ms", label: "p99", unit: "ms" },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}
