// @ts-check
/** Who is not named: addresses that stand for no service. */

import { useAnswer } from "../../core/asking.js";
import { address, change, changed, link } from "../../core/address.js";
import { html } from "../../core/html.js";
import { between } from "../../core/range.js";
import { literal } from "../../core/sql.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { Table } from "../../parts/table.js";

export function UnknownView() {
  const { reason = "" } = address.value.params;
  const sums = useAnswer(`SELECT
  reason,
  count(DISTINCT address) AS addresses,
  sum(bytes)::BIGINT AS bytes,
  sum(http_calls)::BIGINT AS http_calls,
  sum(logs)::BIGINT AS logs
FROM unnamed(${between.value})
GROUP BY reason
ORDER BY bytes DESC, reason`);
  const peers = useAnswer(`SELECT *
FROM unnamed(${between.value})${reason && `\nWHERE reason = ${literal(reason)}`}
ORDER BY bytes DESC, logs DESC, address, port, side, reason`);
  const of = [
    { key: "bytes", label: "Traffic", unit: "bytes" },
    { key: "http_calls", label: "HTTP requests", unit: "count" },
    { key: "logs", label: "Logs", unit: "count", hint: "One for each operation" },
  ];
  return html`<h1>Unknown peers</h1>
    <p class="lead">Addresses that stand for no service of the cluster, with the traffic of the hours that the range touches.</p>
    <${Panel} id="reasons" title="Why they have no name" answer=${sums}>
      ${sums.table?.rows.length
        ? html`<${Table} id="reasons" caption="Reasons" rows=${sums.table.rows} columns=${[
            { key: "reason", label: "Reason", href: (/** @type {any} */ row) => changed({ reason: row.reason === reason ? "" : row.reason }) },
            { key: "addresses", label: "Addresses", unit: "count" },
            ...of,
          ]} rowClass=${(/** @type {any} */ row) => (row.reason === reason ? "chosen" : "")} />`
        : html`<${Nothing} answer=${sums}>Everybody has a name in this range.<//>`}
    <//>
    <${Panel} id="peers" title=${reason ? `Addresses: ${reason}` : "Addresses"} answer=${peers}>
      ${reason && html`<p class="note">Only those with the reason “${reason}”. <button type="button" onClick=${() => change({ reason: "" })}>Show all</button></p>`}
      ${peers.table?.rows.length
        ? html`<${Table} id="peers" caption="Addresses without a name" page=${50} rows=${peers.table.rows} columns=${[
            { key: "address", label: "Address" },
            { key: "port", label: "Port", cell: (/** @type {any} */ row) => row.port || "–", hint: "The port that was called; callers' ports change and are left out" },
            { key: "side", label: "Side", cell: (/** @type {any} */ row) => (row.side === "client" ? "calls" : "is called") },
            { key: "reason", label: "Reason" },
            { key: "partner_with_most", label: "Most of it with", href: (/** @type {any} */ row) => link("service", { service: row.partner_with_most }) },
            { key: "partners", label: "Partners", unit: "count" },
            ...of,
            { key: "first_seen", label: "First seen", unit: "time" },
            { key: "last_seen", label: "Last seen", unit: "time" },
          ]} />`
        : html`<${Nothing} answer=${peers} />`}
    <//>`;
}
