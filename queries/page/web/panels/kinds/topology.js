// @ts-check
/** A map as a file asks for it: nodes and edges with the numbers of its expressions, as picture and lists. */

import { link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { between } from "../../core/range.js";
import { literal } from "../../core/sql.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { Table } from "../../parts/table.js";
import { explained, useExpressions } from "../asking.js";
import { entityLink, graphqlEntity } from "../entity.js";
import { Graph } from "./graph.js";
import { firstError, numberOf } from "./lists.js";
import { decoded } from "../model.js";
import { pageNamed } from "../pages.js";
import { valueShown, valueWhole } from "../units.js";

/**
 * @typedef {import("../model.js").Widget} Widget
 * @typedef {Record<string, string>} Params
 * @typedef {{node: string, edge: string, view: string, parts: string[], where: string}} Wanted
 */

/** Edges whose numbers are asked. */
const MOST_EDGES = 150;

/** Which nodes and edges the map of an entity has. @param {string} kind @param {Params} params @returns {Wanted} */
function mapOf(kind, params) {
  const services = { node: "Service", edge: "ServiceRelation", view: "service_relation", parts: ["service"] };
  const pods = { node: "ServiceInstance", edge: "ServiceInstanceRelation", view: "service_instance_relation", parts: ["service", "instance"] };
  const endpoints = { node: "Endpoint", edge: "EndpointRelation", view: "endpoint_relation", parts: ["service", "endpoint"] };
  const [service, source, dest] = [params.service, params.source, params.dest].map((one) => literal(one ?? ""));
  const either = (/** @type {string} */ part, /** @type {string} */ of) =>
    ["source", "dest"].map((side) => `(${side}_service = ${service} AND ${side}_${part} = ${literal(of)})`).join(" OR ");
  switch (kind) {
    case "Service": return { ...services, where: `source_service = ${service} OR dest_service = ${service}` };
    case "ServiceRelation": return { ...pods, where: `source_service = ${source} AND dest_service = ${dest}` };
    case "ServiceInstance": return { ...pods, where: either("instance", params.instance ?? "") };
    case "Endpoint": return { ...endpoints, where: either("endpoint", params.endpoint ?? "") };
    default: return { ...services, where: "true" };
  }
}

/** @param {Wanted} map */
function edgesSql({ view, parts, where }) {
  const columns = ["source", "dest"].flatMap((side) => parts.map((part) => `${side}_${part}`));
  return `SELECT DISTINCT ${columns.join(", ")}\nFROM ${view}_between(${between.value})\nWHERE ${where}\nORDER BY ALL\nLIMIT ${MOST_EDGES + 1}`;
}

/** @param {any} props */
export function TopologyPanel({ widget, kind, params, id, title, frame }) {
  const map = mapOf(kind, params);
  const answer = useAnswer(edgesSql(map));
  const edges = (answer.table?.rows ?? []).slice(0, MOST_EDGES).map((row) => edgeOf(row, map));
  const nodes = nodesOf(edges);
  const nodeAsked = askedFor(nodes, widget.nodeExpressions, map.node);
  const warning = widget.legendMQE?.expression;
  const server = askedFor(edges, widget.linkServerExpressions, map.edge);
  const client = askedFor(edges, widget.linkClientExpressions, map.edge);
  const warned = askedFor(nodes, warning ? [warning] : [], map.node);
  const asked = [...nodeAsked, ...warned, ...server, ...client];
  const numbers = useExpressions(asked);
  const take = (/** @type {any[]} */ of, /** @type {number} */ begin) => numbers.results.slice(begin, begin + of.length);
  const parts = [0, nodeAsked.length, nodeAsked.length + warned.length, nodeAsked.length + warned.length + server.length];
  const alarms = new Set(nodes.filter((_, at) => numberOf(take(warned, parts[1])[at]) === 1));
  const nodeRows = rowsOf(nodes, take(nodeAsked, parts[0]), widget.nodeExpressions).map((row, at) => ({ ...row, isBad: alarms.has(nodes[at]) }));
  const sides = [
    { expressions: widget.linkServerExpressions, config: widget.linkServerMetricConfig, key: "s" },
    { expressions: widget.linkClientExpressions, config: widget.linkClientMetricConfig, key: "c" },
  ];
  const edgeRows = rowsOf(edges, take(server, parts[2]), widget.linkServerExpressions, "s")
    .map((row, at) => ({ ...row, ...rowsOf([edges[at]], numbersOf(take(client, parts[3]), at, widget.linkClientExpressions), widget.linkClientExpressions, "c")[0] }));
  const table = answer.table && { columns: columnsOf(edgeRows), rows: edgeRows, truncated: false };
  const told = { sql: answer.sql, table, error: answer.error ?? numbers.error ?? firstError(numbers.results), isPending: answer.isPending || numbers.isPending };
  const statements = async () => [answer.sql, ...(await explained(asked))];
  const mqe = [...new Set(asked.map(({ expression }) => expression))];
  const isCut = (answer.table?.rows.length ?? 0) > MOST_EDGES;
  return html`<${Panel} ...${frame} title=${decoded(widget.widget?.title) || "Map"} answer=${told} mqe=${mqe} statements=${statements}>
    ${map.node === "Service" && html`<p class="note"><a href=${link("map", kind === "Service" ? { chosen: params.service ?? "" } : {})}>Open it in the map</a>${legendOf(widget)}</p>`}
    ${isCut && html`<p class="note">Of more edges these are the first ${MOST_EDGES} by name.</p>`}
    ${edges.length
      ? html`<${Graph} id=${id} title=${title} nodes=${nodeRows.map((row) => drawnNode(row, map, widget))} edges=${edgeRows.map((row) => drawnEdge(row, map, widget, sides))} />
        <div class="pair"><${Table} id="${id}-nodes" caption="${title}: nodes" rows=${nodeRows} rowClass=${(/** @type {any} */ row) => (row.isBad ? "bad" : "")} columns=${[
          { key: "name", label: "Node", href: (/** @type {any} */ row) => nodeLink(row.of, map.node, widget) },
          ...heads(widget.nodeExpressions, widget.nodeMetricConfig, "n"),
        ]} /><${Table} id="${id}-edges" caption="${title}: edges" rows=${edgeRows} columns=${[
          { key: "name", label: "Edge", href: (/** @type {any} */ row) => edgeLink(row.of, map.edge, widget) },
          ...sides.flatMap(({ expressions, config, key }) => heads(expressions, config, key)),
        ]} /></div>`
      : html`<${Nothing} answer=${told}>Nobody spoke with it in this range.<//>`}
  <//>`;
}

/** @param {Widget} widget */
function legendOf(widget) {
  const text = decoded(widget.description?.unhealthy);
  return text ? `. Red is: ${text}` : "";
}

/** @param {Params} row @param {Wanted} map @returns {{name: string, of: Params}} */
function edgeOf(row, { parts }) {
  const of = { source: row.source_service, dest: row.dest_service };
  const own = parts.at(-1);
  if (own === "service") return { name: `${of.source} → ${of.dest}`, of };
  const [source, dest] = [row[`source_${own}`], row[`dest_${own}`]];
  return { name: `${source || of.source} → ${dest || of.dest}`, of: { ...of, [`source_${own}`]: source, [`dest_${own}`]: dest } };
}

/** @param {{of: Params}[]} edges @returns {{name: string, of: Params}[]} */
function nodesOf(edges) {
  const found = new Map();
  for (const { of } of edges) {
    for (const side of ["source", "dest"]) {
      const node = endOf(of, side);
      found.set(idOf(node), { name: node.instance || node.endpoint || node.service, of: node });
    }
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** @param {Params} of @param {string} side @returns {Params} */
function endOf(of, side) {
  return { service: of[side], instance: of[`${side}_instance`] ?? "", endpoint: of[`${side}_endpoint`] ?? "" };
}

/** @param {Params} node */
function idOf({ service, instance, endpoint }) {
  return JSON.stringify([service, instance, endpoint]);
}

/** @param {{of: Params}[]} things @param {string[] | undefined} expressions @param {string} kind */
function askedFor(things, expressions, kind) {
  return things.flatMap(({ of }) => (expressions ?? []).map((expression) => ({ expression, entity: graphqlEntity(kind, of) })));
}

/** @param {any[]} results @param {number} at @param {string[] | undefined} expressions */
function numbersOf(results, at, expressions) {
  const width = (expressions ?? []).length;
  return results.slice(at * width, (at + 1) * width);
}

/** @param {{name: string, of: Params}[]} things @param {any[]} results @param {string[] | undefined} expressions @param {string} [key] */
function rowsOf(things, results, expressions, key = "n") {
  return things.map((thing, at) => ({ ...thing, ...Object.fromEntries(numbersOf(results, at, expressions).map((one, of) => [`${key}${of}`, numberOf(one)])) }));
}

/** @param {any[]} rows */
function columnsOf(rows) {
  return Object.keys(rows[0] ?? { name: "" }).filter((key) => key !== "of").map((name) => ({ name, type: name === "name" ? "VARCHAR" : "DOUBLE" }));
}

/** @param {string[] | undefined} expressions @param {any[] | undefined} config @param {string} key */
function heads(expressions, config, key) {
  return (expressions ?? []).map((expression, at) => {
    const [label, unit] = [decoded(config?.[at]?.label) || expression, decoded(config?.[at]?.unit)];
    return { key: `${key}${at}`, label: unit ? `${label} [${unit}]` : label, unit: "number", hint: expression, cell: (/** @type {any} */ row) => valueShown(row[`${key}${at}`], unit) };
  });
}

/** @param {any} row @param {Wanted} map @param {Widget} widget */
function drawnNode(row, map, widget) {
  const { service } = row.of;
  return { id: idOf(row.of), group: map.node === "Service" ? "" : service, name: row.name, numbers: written(row, widget.nodeExpressions, widget.nodeMetricConfig, "n"), isBad: row.isBad, href: nodeLink(row.of, map.node, widget) };
}

/** @param {any} row @param {Wanted} map @param {Widget} widget @param {any[]} sides */
function drawnEdge(row, map, widget, sides) {
  const [source, dest] = ["source", "dest"].map((side) => idOf(endOf(row.of, side)));
  const numbers = sides.flatMap(({ expressions, config, key }) => written(row, expressions, config, key));
  return { source, dest, name: row.name, numbers, href: edgeLink(row.of, map.edge, widget) };
}

/** @param {any} row @param {string[] | undefined} expressions @param {any[] | undefined} config @param {string} key */
function written(row, expressions, config, key) {
  const heard = (expressions ?? []).map((_, at) => ({ value: row[`${key}${at}`], label: decoded(config?.[at]?.label), unit: decoded(config?.[at]?.unit) }));
  return heard.filter(({ value }) => value !== null && value !== undefined).map(({ value, label, unit }) => [label, valueWhole(value, unit)].filter(Boolean).join(" "));
}

/** @param {Params} of @param {string} kind @param {Widget} widget */
function edgeLink(of, kind, widget) {
  return of ? entityLink(kind, of, pageNamed(kind, widget.linkDashboard)?.id) : null;
}

/** @param {Params} of @param {string} kind @param {Widget} widget */
function nodeLink(of, kind, widget) {
  if (of.service === "Unknown") return link("unknown");
  const named = Array.isArray(widget.nodeDashboard) ? widget.nodeDashboard.find(({ scope }) => scope === kind)?.dashboard : widget.nodeDashboard;
  return entityLink(kind, of, pageNamed(kind, named)?.id);
}
