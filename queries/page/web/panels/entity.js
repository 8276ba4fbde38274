// @ts-check
/** What a page is about: as an address names it, as GraphQL does, and as SQL. */

import { link } from "../core/address.js";
import { between } from "../core/range.js";
import { literal } from "../core/sql.js";

/**
 * @typedef {Record<string, string>} Params
 * @typedef {Record<string, string | boolean>} GraphqlEntity
 * @typedef {object} Kind
 * @property {string} view the view of such an entity
 * @property {Record<string, string>} names parameters of the address, and what GraphQL calls them
 * @property {string} word what a person calls it
 * @property {(words: string) => string} choices SQL that lists some, with the parameters as columns
 */

const SERVICE = { service: "serviceName" };
const SERVICES = { source: "serviceName", dest: "destServiceName" };

/** @type {Record<string, Kind>} */
export const KINDS = {
  All: { view: "dashboards", names: {}, word: "all services", choices: () => "" },
  Service: {
    view: "service", names: SERVICE, word: "service",
    choices: (words) => `SELECT service\nFROM services(${between.value})\nWHERE ${has("service", words)}\nLIMIT 200`,
  },
  ServiceInstance: {
    view: "pod", names: { ...SERVICE, instance: "serviceInstanceName" }, word: "pod",
    choices: (words) => `SELECT service, instance\nFROM instances(${between.value})\nWHERE ${has("service || ' ' || instance", words)}\nLIMIT 200`,
  },
  Endpoint: {
    view: "endpoint", names: { ...SERVICE, endpoint: "endpointName" }, word: "endpoint",
    choices: (words) => `SELECT service, endpoint\nFROM endpoints(${between.value})\nWHERE ${has("service || ' ' || endpoint", words)}\nLIMIT 200`,
  },
  ServiceRelation: {
    view: "edge", names: SERVICES, word: "edge",
    choices: (words) => pairs("service_relation", ["service"], words),
  },
  ServiceInstanceRelation: {
    view: "pod-edge", word: "pair of pods",
    names: { ...SERVICES, source_instance: "serviceInstanceName", dest_instance: "destServiceInstanceName" },
    choices: (words) => pairs("service_instance_relation", ["service", "instance"], words),
  },
  EndpointRelation: {
    view: "endpoint-edge", word: "pair of endpoints",
    names: { ...SERVICES, source_endpoint: "endpointName", dest_endpoint: "destEndpointName" },
    choices: (words) => pairs("endpoint_relation", ["service", "endpoint"], words),
  },
};

/** @param {string} view @returns {string | undefined} the kind of entity that a view is about */
export function kindOf(view) {
  return Object.keys(KINDS).find((kind) => KINDS[kind].view === view);
}

/** @param {string} kind @param {Params} params @returns {GraphqlEntity} */
export function graphqlEntity(kind, params) {
  const named = Object.entries(KINDS[kind]?.names ?? {}).map(([name, field]) => [field, params[name] ?? ""]);
  const entity = Object.fromEntries(named);
  if ("serviceName" in entity) entity.normal = true;
  if ("destServiceName" in entity) entity.destNormal = true;
  return entity;
}

/** The parameters of an entity alone. @param {string} kind @param {Params} params @returns {Params} */
export function named(kind, params) {
  return Object.fromEntries(Object.keys(KINDS[kind].names).map((name) => [name, params[name] ?? ""]));
}

/** The view of a kind of entity, and the condition that a row is about one, in SQL. @param {string} kind @param {Params} params */
export function inSql(kind, params) {
  const views = /** @type {Record<string, string>} */ ({ Service: "service", ServiceInstance: "service_instance", Endpoint: "endpoint", ServiceRelation: "service_relation", ServiceInstanceRelation: "service_instance_relation", EndpointRelation: "endpoint_relation" });
  const of = Object.entries(named(kind, params)).map(([name, value]) => `${name === "source" || name === "dest" ? `${name}_service` : name} = ${literal(value)}`);
  return { view: views[kind], where: of.join(" AND ") };
}

/** The address of an entity, on a page. @param {string} kind @param {Params} params @param {string} [page] */
export function entityLink(kind, params, page = "") {
  return link(KINDS[kind].view, { ...named(kind, params), ...(page ? { page } : {}) });
}

/** @param {string} kind @param {Params} params */
export function title(kind, params) {
  const of = named(kind, params);
  switch (kind) {
    case "All": return "All services";
    case "Service": return of.service;
    case "ServiceInstance": return of.instance;
    case "Endpoint": return of.endpoint;
    case "ServiceRelation": return `${of.source} → ${of.dest}`;
    case "ServiceInstanceRelation": return `${of.source_instance} → ${of.dest_instance}`;
    default: return `${of.source_endpoint} → ${of.dest_endpoint}`;
  }
}

/** @param {string} view @param {string[]} parts @param {string} words */
function pairs(view, parts, words) {
  const columns = parts.flatMap((part) => [
    [`source_${part}`, part === "service" ? "source" : `source_${part}`],
    [`dest_${part}`, part === "service" ? "dest" : `dest_${part}`],
  ]);
  const shown = columns.map(([column, name]) => (column === name ? column : `${column} AS ${name}`));
  const all = columns.map(([column]) => column).join(" || ' ' || ");
  return `SELECT DISTINCT ${shown.join(", ")}\nFROM ${view}_between(${between.value})\nWHERE ${has(all, words)}\nORDER BY ALL\nLIMIT 200`;
}

/** @param {string} text in SQL @param {string} words all of which it has */
function has(text, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return wanted.map((word) => `contains(lower(${text}), ${literal(word)})`).join(" AND ") || "true";
}
