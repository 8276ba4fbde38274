// @ts-check
/** A panel of what one entity is over the whole range. */

import { useAnswer } from "../core/asking.js";
import { useEarlier } from "../core/comparing.js";
import { whole } from "../core/format.js";
import { html } from "../core/html.js";
import { between } from "../core/range.js";
import { totalsSql } from "./http.js";
import { Nothing, Panel } from "./panel.js";
import { failedTone } from "./table.js";
import { Tiles } from "./tiles.js";

/** @param {{of: import("./http.js").Of}} props */
export function Totals({ of }) {
  const sql = totalsSql(of, between.value);
  const answer = useAnswer(sql);
  const earlier = useEarlier(sql);
  const row = answer.table?.rows[0];
  return html`<${Panel} id="totals" class="wide" title="Over the whole range" answer=${answer} earlier=${earlier}>
    ${row
      ? html`<${Tiles} items=${tiles(row)} before=${earlier && tiles(earlier.table?.rows[0] ?? {})} />`
      : html`<${Nothing} answer=${answer}>Nothing is known of it in this range. It may be quiet, or have another name.<//>`}
  <//>`;
}

/** @param {import("../core/asking.js").Row} row */
function tiles(row) {
  return [
    { label: "Requests answered", value: whole(row.calls_per_minute, "per_minute") },
    { label: "Failed", value: whole(row.failed_percent, "percent"), tone: failedTone(row.failed_percent) },
    { label: "p50", value: whole(row.p50_ms, "ms") },
    { label: "p99", value: whole(row.p99_ms, "ms") },
  ];
}
