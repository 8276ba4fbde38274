// @ts-check
/** What the map asks: boxes and edges, grouped in SQL by the namespaces that are closed. */

import { between } from "../../core/range.js";
import { literal, namespaceOf, percent } from "../../core/sql.js";

/** With more services than this, namespaces begin closed. */
export const MOST_OPEN = 60;
/** With more edges than this the picture shows those with the most calls; the list has all. */
export const MOST_DRAWN = 3_000;

const UNKNOWN = "'Unknown'";
const R = "kubernetes_service_relation_";

/**
 * @typedef {object} Wish
 * @property {Set<string> | "all"} open namespaces whose services are boxes of their own
 * @property {string[]} with parts of names: one of them must be in one end
 * @property {string[]} without parts of names that no end may have
 * @property {boolean} problems only edges with failures
 * @property {boolean} unknown also peers without a name
 */

/** The namespaces, with how many services each has. */
export function namespacesSql() {
  return `SELECT
  ${namespaceOf("service")} AS namespace,
  count(*) AS services
FROM service_between(${between.value}, divide_by := 1)
WHERE service <> ${UNKNOWN}
GROUP BY namespace
ORDER BY namespace`;
}

/** @param {string} column @param {Wish["open"]} open */
function box(column, open) {
  if (open === "all") return column;
  if (open.size === 0) return `'ns/' || ${namespaceOf(column)}`;
  const names = [...open].sort().map(literal).join(", ");
  return `CASE WHEN ${namespaceOf(column)} IN (${names}) THEN ${column} ELSE 'ns/' || ${namespaceOf(column)} END`;
}

/** A pair of conditions on names, in SQL. @param {Wish} wish @param {string[]} columns */
function conditions(wish, columns) {
  const like = (/** @type {string} */ column, /** @type {string} */ word) => `contains(lower(${column}), ${literal(word.toLowerCase())})`;
  const any = wish.with.flatMap((word) => columns.map((column) => like(column, word)));
  const none = wish.without.flatMap((word) => columns.map((column) => `NOT ${like(column, word)}`));
  return [...(any.length ? [`(${any.join(" OR ")})`] : []), ...none];
}

/** The boxes. @param {Wish} wish */
export function boxesSql(wish) {
  const where = [`service <> ${UNKNOWN}`, ...conditions({ ...wish, with: [] }, ["service"])];
  return `SELECT
  ${box("service", wish.open)} AS box,
  any_value(${namespaceOf("service")}) AS namespace,
  count(*) AS services,
  round(coalesce(sum(kubernetes_service_http_call_cpm), 0) / any_value(minutes), 1) AS calls_per_minute,
  ${percent("sum(kubernetes_service_http_call_cpm) - coalesce(sum(kubernetes_service_http_success_cpm), 0)", "sum(kubernetes_service_http_call_cpm)")} AS failed_percent,
  round(max(p99) / 1e6, 2) AS slowest_p99_ms
FROM service_between(${between.value}, divide_by := 1)
LEFT JOIN service_percentiles_between(${between.value}, 'kubernetes_service_http_latency_ns_percentile') USING (service)
WHERE ${where.join("\n  AND ")}
GROUP BY box
ORDER BY box`;
}

/**
 * The edges: each as the end saw it that saw more of the calls; counts are added up, and of
 * percentiles the largest is told, as they do not add up.
 * @param {Wish} wish
 */
export function edgesSql(wish) {
  const where = conditions(wish, ["source_service", "dest_service"]);
  if (!wish.unknown) where.push(`source_service <> ${UNKNOWN}`, `dest_service <> ${UNKNOWN}`);
  const named = (/** @type {string} */ column, /** @type {string} */ other, /** @type {string} */ kind) =>
    wish.unknown
      ? `CASE ${column} WHEN ${UNKNOWN} THEN '${kind}/' || ${namespaceOf(other)} ELSE ${box(column, wish.open)} END`
      : box(column, wish.open);
  const ofEnd = (/** @type {string} */ end) =>
    `LEFT JOIN service_relation_percentiles_between(${between.value}, '${R}${end}_http_latency_ns_percentile') AS ${end} USING (source_service, dest_service)`;
  return `WITH seen AS (
  SELECT
    source_service,
    dest_service,
    minutes,
    coalesce(${R}server_http_call_cpm, 0) AS server_calls,
    coalesce(${R}client_http_call_cpm, 0) AS client_calls,
    server_calls >= client_calls AS by_callee,
    CASE WHEN by_callee THEN ${R}server_http_success_cpm ELSE ${R}client_http_success_cpm END AS succeeded,
    CASE WHEN by_callee THEN server.p99 ELSE client.p99 END AS p99_ns,
    coalesce(${R}client_write_package_size, ${R}server_read_package_size, 0)
      + coalesce(${R}client_read_package_size, ${R}server_write_package_size, 0) AS bytes
  FROM service_relation_between(${between.value}, divide_by := 1)
  ${ofEnd("server")}
  ${ofEnd("client")}${where.length ? `\n  WHERE ${where.join("\n    AND ")}` : ""}
), chosen AS (
  SELECT *, greatest(server_calls, client_calls) AS calls, calls - coalesce(succeeded, 0) AS failed
  FROM seen
)
SELECT
  ${named("source_service", "dest_service", "unknown-callers")} AS source,
  ${named("dest_service", "source_service", "unknown-called")} AS dest,
  count(*) AS pairs,
  round(sum(calls) / any_value(minutes), 1) AS calls_per_minute,
  ${percent("sum(failed)", "sum(calls)")} AS failed_percent,
  round(max(p99_ns) / 1e6, 2) AS slowest_p99_ms,
  round(sum(bytes) / any_value(minutes))::BIGINT AS bytes_per_minute
FROM chosen
GROUP BY source, dest${wish.problems ? "\nHAVING failed_percent >= 1" : ""}
ORDER BY calls_per_minute DESC, source, dest`;
}

/** What a box is called. @param {string} id */
export function nameOf(id) {
  if (id.startsWith("ns/")) return id.slice(3) === "-" ? "no namespace" : id.slice(3);
  if (id.startsWith("unknown-callers/")) return `Unknown callers of ${id.slice(16)}`;
  if (id.startsWith("unknown-called/")) return `Unknown, called by ${id.slice(15)}`;
  return id;
}

/** @param {string} id */
export function isService(id) {
  return !id.includes("/");
}

/** The group in which a box stands; "" if it stands for itself. @param {string} id */
export function groupOf(id) {
  if (!isService(id)) return "";
  return /\.([^.]+)$/.exec(id)?.[1] ?? "-";
}

/** @param {string} text the filter as it is typed @returns {{with: string[], without: string[]}} */
export function words(text) {
  const all = text.split(/\s+/).filter((word) => word && word !== "-");
  return {
    with: all.filter((word) => !word.startsWith("-")),
    without: all.filter((word) => word.startsWith("-")).map((word) => word.slice(1)),
  };
}
