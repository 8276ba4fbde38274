// @ts-check
/** What an edge asks: the request, and below it what each end's kernel did. */

import { between, rate, sumRate } from "../../core/range.js";
import { literal, percent } from "../../core/sql.js";

const R = "kubernetes_service_relation_";

/**
 * @typedef {{source: string, dest: string}} Pair
 * @typedef {import("../../parts/bars.js").Bar} Bar
 * @typedef {import("../../core/asking.js").Row} Row
 */

/** @param {Pair} pair */
export function whereOf({ source, dest }) {
  return `source_service = ${literal(source)} AND dest_service = ${literal(dest)}`;
}

/** The chart queries are those of the view `service_relation`. @param {Pair} pair */
export function ofPair(pair) {
  return { view: "service_relation", prefix: R, where: whereOf(pair) };
}

/** @param {Pair} pair */
export function totalsSql(pair) {
  return `SELECT
  round(greatest(${R}client_http_call_cpm, ${R}server_http_call_cpm) / minutes, 1) AS calls_per_minute,
  ${percent(`${R}client_http_call_cpm - coalesce(${R}client_http_success_cpm, 0)`, `${R}client_http_call_cpm`)} AS failed_percent_by_caller,
  ${percent(`${R}server_http_call_cpm - coalesce(${R}server_http_success_cpm, 0)`, `${R}server_http_call_cpm`)} AS failed_percent_by_callee
FROM service_relation_between(${between.value}, divide_by := 1)
WHERE ${whereOf(pair)}`;
}

/** @param {Pair} pair */
export function tcpSql({ source, dest }) {
  return `FROM tcp(${between.value}, of_source := ${literal(source)}, of_dest := ${literal(dest)})`;
}

/** How long a request took, by who saw what. @param {Pair} pair */
export function requestSql(pair) {
  const of = (/** @type {string} */ name, /** @type {string} */ metric) =>
    ["p50", "p99"].map((one) => `round(${R}${metric}_percentile.${one} / 1e6, 3) AS ${name}_${one}_ms`);
  return `SELECT
  round(${R}client_http_serving_ns_avg / 1e6, 3) AS caller_average_ms,
  round(${R}server_http_serving_ns_avg / 1e6, 3) AS serving_average_ms,
  ${[...of("caller", "client_http_latency_ns"), ...of("callee", "server_http_latency_ns"), ...of("serving", "server_http_serving_ns")].join(",\n  ")}
FROM service_relation_between(${between.value}, divide_by := 1)
WHERE ${whereOf(pair)}`;
}

/** @param {Row} row @returns {Bar[]} */
export function requestBars(row) {
  const { caller_average_ms: whole, serving_average_ms: worked } = row;
  const isBoth = whole !== null && worked !== null;
  const average = {
    label: "average: both",
    parts: [
      { label: "the callee's program", value: isBoth ? worked : null, colour: "line-3", hint: "from the request read to the answer written" },
      { label: "kernels, queues and wire", value: isBoth ? less(whole, worked) : null, colour: "line-4", hint: "what the caller waited beside that" },
    ],
  };
  return [average, ...["p50", "p99"].flatMap((one) => [
    { label: `${one}: the caller waited`, parts: [{ label: "seen by the caller", value: row[`caller_${one}_ms`], colour: "line-1" }] },
    { label: `${one}: at the callee`, parts: [{ label: "seen by the callee's kernel", value: row[`callee_${one}_ms`], colour: "line-2", hint: "from where it began to read, so with the wait for the request" }] },
    { label: `${one}: it worked`, parts: [{ label: "the callee's program", value: row[`serving_${one}_ms`], colour: "line-3", hint: "from the request read to the answer written" }] },
  ])];
}

/** Time of one operation in each layer, on average, in the order of a request's way. @param {Pair} pair */
export function layersSql(pair) {
  const own = (/** @type {string} */ side, /** @type {string} */ operation, /** @type {Record<string, string>} */ parts) => {
    const count = `${R}${side}_${operation}_cpm`;
    const columns = Object.entries(parts).map(([name, metric]) => `round(${R}${side}_${operation}_${metric} / ${count} / 1e3, 2) AS ${name}_us`);
    return `SELECT '${side}' AS side, '${operation}' AS operation, ${count} AS operations,
  ${columns.join(",\n  ")}
FROM one`;
  };
  const write = { call: "package_duration", l4: "l4_duration", l3: "l3_duration", l2: "l2_duration" };
  const read = { call: "package_duration", l4: "l4_duration", l3: "l3_duration", l2: "package_to_queue_duration" };
  return `WITH one AS (
  FROM service_relation_between(${between.value}, divide_by := 1)
  WHERE ${whereOf(pair)}
)
${[own("client", "write", write), own("server", "read", read), own("server", "write", write), own("client", "read", read)].join("\nUNION ALL\n")}`;
}

const WAYS = /** @type {Record<string, string>} */ ({
  "client write": "1. The caller writes",
  "server read": "2. The callee reads",
  "server write": "3. The callee writes",
  "client read": "4. The caller reads",
});

/**
 * Of a write the layers lie inside each other, and each part is what a layer took without the next.
 * Packets that are read pass the layers before somebody asks for them: there the call is no frame.
 * @param {Row[]} rows @returns {Bar[]}
 */
export function layerBars(rows) {
  return rows.map((row) => ({
    label: WAYS[`${row.side} ${row.operation}`],
    parts: [
      ...(row.operation === "write"
        ? [{ label: "system call", value: less(row.call_us, row.l4_us), colour: "line-4", hint: "the call of the program, without what TCP took" }]
        : []),
      { label: "L4 (TCP)", value: less(row.l4_us, row.l3_us), colour: "line-1" },
      { label: "L3 (IP)", value: row.operation === "write" ? less(row.l3_us, row.l2_us) : row.l3_us, colour: "line-3" },
      { label: "L2 (device and its queue)", value: row.l2_us, colour: "line-2" },
    ],
  }));
}

/** @param {number | null} whole @param {number | null} part */
function less(whole, part) {
  if (whole === null) return null;
  return Math.max(0, Number((whole - (part ?? 0)).toFixed(2)));
}

/** Pairs of pods, each as the end saw it that saw more. @param {Pair} pair */
export function podsSql(pair) {
  const P = "kubernetes_service_instance_relation_";
  return `WITH seen AS (
  SELECT
    *,
    coalesce(${P}server_http_call_cpm, 0) >= coalesce(${P}client_http_call_cpm, 0) AS by_server
  FROM service_instance_relation_between(${between.value}, divide_by := 1)
  WHERE ${whereOf(pair)}
)
SELECT
  source_instance,
  dest_instance,
  CASE WHEN by_server THEN 'callee' ELSE 'caller' END AS seen_by,
  CASE WHEN by_server THEN ${P}server_http_call_cpm ELSE ${P}client_http_call_cpm END AS calls,
  round(calls / minutes, 1) AS calls_per_minute,
  round(100 * (calls - coalesce(CASE WHEN by_server THEN ${P}server_http_success_cpm ELSE ${P}client_http_success_cpm END, 0)) / calls, 2) AS failed_percent,
  round((CASE WHEN by_server THEN ${P}server_http_latency_ns_percentile.p99 ELSE ${P}client_http_latency_ns_percentile.p99 END) / 1e6, 2) AS p99_ms,
  coalesce(${P}client_write_package_size, ${P}server_read_package_size) AS request_bytes,
  coalesce(${P}client_read_package_size, ${P}server_write_package_size) AS response_bytes,
  coalesce(${P}client_write_retrains_package_cpm, 0) + coalesce(${P}server_write_retrains_package_cpm, 0) AS retransmitted
FROM seen
ORDER BY calls DESC NULLS LAST, source_instance, dest_instance`;
}

/** Columns of charts. */
export const charts = {
  requests: () => [
    `${rate(`${R}client_http_call_cpm`)} AS by_caller`,
    `${rate(`${R}server_http_call_cpm`)} AS by_callee`,
    `${rate(`(${R}client_http_call_cpm - coalesce(${R}client_http_success_cpm, 0))`)} AS failed_by_caller`,
    `${rate(`(${R}server_http_call_cpm - coalesce(${R}server_http_success_cpm, 0))`)} AS failed_by_callee`,
  ],
  latency: () =>
    ["client", "server"].flatMap((side) => ["p50", "p99"].map((one) => `round(${R}${side}_http_latency_ns_percentile.${one} / 1e6, 3) AS ${side}_${one}_ms`)),
  bytes: () => [
    `${sumRate(`coalesce(${R}client_write_package_size, ${R}server_read_package_size)`)} AS there`,
    `${sumRate(`coalesce(${R}client_read_package_size, ${R}server_write_package_size)`)} AS back`,
  ],
  retransmits: () => [
    `${sumRate(`${R}client_write_retrains_package_cpm`)} AS by_caller`,
    `${sumRate(`${R}server_write_retrains_package_cpm`)} AS by_callee`,
  ],
  connections: () => [
    `${rate(`${R}connect_cpm`)} AS connects`,
    `${rate(`(${R}connect_cpm - coalesce(${R}connect_success_cpm, 0))`)} AS failed`,
    `${rate(`${R}accept_cpm`)} AS accepts`,
  ],
  times: () =>
    ["client_write", "server_read", "server_write", "client_read"].map(
      (one) => `round(${R}${one}_package_duration / ${R}${one}_cpm / 1e3, 1) AS ${one}_us`,
    ),
};
