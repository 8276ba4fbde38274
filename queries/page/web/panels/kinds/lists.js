// @ts-check
/** Panels that are no charts: a number, a list, a table, the entities of a kind. */

import { change, address } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { between } from "../../core/range.js";
import { literal } from "../../core/sql.js";
import { Table } from "../../parts/table.js";
import { useExpressions } from "../asking.js";
import { entityLink, graphqlEntity } from "../entity.js";
import { labelOf, mapped, unitOf } from "../model.js";
import { pageNamed } from "../pages.js";
import { valueShown, valueWhole } from "../units.js";

/**
 * @typedef {import("../model.js").Widget} Widget
 * @typedef {import("../model.js").Named} Named
 * @typedef {import("../asking.js").Result} Result
 * @typedef {import("../../core/asking.js").Table} Rows
 */

/** @param {{widget: Widget, series: Named[]}} props */
export function Card({ widget, series }) {
  const unit = widget.graph?.showUnit === false ? "" : (series[0]?.unit ?? "");
  const value = lastOf(series[0]);
  return html`<p class="card">${value === null ? "–" : meant(widget, value, unit)}</p>`;
}

/** The rows of what has one value each. @param {Named[]} series @returns {Rows} */
export function singleRows(series) {
  const rows = series.map((one) => ({ label: one.label, value: lastOf(one), unit: one.unit }));
  return { columns: [{ name: "label", type: "VARCHAR" }, { name: "value", type: "DOUBLE" }, { name: "unit", type: "VARCHAR" }], rows, truncated: false };
}

/** @param {{id: string, title: string, widget: Widget, series: Named[]}} props */
export function Labelled({ id, title, widget, series }) {
  const heads = [widget.graph?.tableHeaderCol1, widget.graph?.tableHeaderCol2];
  const columns = [{ key: "label", label: heads[0] || "Labels" }];
  if (widget.graph?.showTableValues !== false) {
    columns.push(/** @type {any} */ ({ key: "value", label: heads[1] || "Value", unit: "number", cell: (/** @type {any} */ row) => meant(widget, row.value, row.unit) }));
  }
  return html`<${Table} id=${id} caption=${title} rows=${singleRows(series).rows} columns=${columns} />`;
}

/** What a value means where the file says so, or else the value. @param {Widget} widget @param {number} value @param {string} unit */
function meant(widget, value, unit) {
  const text = String(value);
  const meaning = mapped(widget, text);
  return meaning === text ? valueWhole(value, unit) : meaning;
}

/** @param {Named | undefined} series */
function lastOf(series) {
  return series?.values.findLast((value) => value !== null) ?? null;
}

/**
 * A list of entities by a metric. Of several expressions one is shown, and the others can be chosen.
 * @param {{id: string, title: string, widget: Widget, results: Result[]}} props
 */
export function TopList({ id, title, widget, results }) {
  const at = chosenOf(id, results);
  const rows = topRows(widget, results, at).rows;
  const unit = unitOf(widget, at);
  const most = Math.max(...rows.map(({ value }) => Math.abs(value ?? 0)), Number.MIN_VALUE);
  return html`${results.length > 1 && html`<label class="choice">Show <select value=${String(at)} onChange=${(/** @type {any} */ event) => change({ [`${id}.of`]: event.target.value }, { replaces: true })}>
      ${results.map((_, one) => html`<option key=${one} value=${String(one)}>${labelOf(widget, one) || widget.expressions[one]}</option>`)}
    </select></label>`}
    <ol class="top" aria-label=${title}>${rows.map((row, place) => html`<li key=${place}>
      <span class="name">${row.href ? html`<a href=${row.href}>${row.name}</a>` : row.name}</span>
      <span class="value">${valueWhole(row.value, unit)}</span>
      <span class="length" aria-hidden="true"><span style=${{ width: `${(100 * Math.abs(row.value ?? 0)) / most}%` }}></span></span>
    </li>`)}</ol>`;
}

/** @param {string} id @param {Result[]} results */
function chosenOf(id, results) {
  const at = Number(address.value.params[`${id}.of`] ?? 0);
  return results[at] ? at : 0;
}

/** @param {Widget} widget @param {Result[]} results @param {number} at @returns {Rows} */
export function topRows(widget, results, at) {
  const rows = (results[at]?.results ?? []).flatMap((series) => {
    const labels = series.metric.labels.map(({ key, value }) => `${key}=${value}`).join(",");
    return series.values
      .filter(({ value, id }) => value !== null && id !== null)
      .map(({ id, value, owner }) => ({ name: labels ? `${id} ${labels}` : String(id), value: Number(value), href: ownerLink(owner, widget.valueRelatedDashboard) }));
  });
  return { columns: [{ name: "name", type: "VARCHAR" }, { name: "value", type: "DOUBLE" }], rows, truncated: false };
}

/** @param {import("../asking.js").Owner | null | undefined} owner @param {string | undefined} page */
function ownerLink(owner, page) {
  if (!owner?.scope || !["Service", "ServiceInstance", "Endpoint"].includes(owner.scope)) return null;
  const params = { service: owner.serviceName, instance: owner.serviceInstanceName ?? "", endpoint: owner.endpointName ?? "" };
  return entityLink(owner.scope, params, page && pageNamed(owner.scope, page)?.id);
}

const OF_LISTS = /** @type {Record<string, {kind: string, key: string, label: string, macro: string}>} */ ({
  ServiceList: { kind: "Service", key: "service", label: "Service", macro: "services" },
  InstanceList: { kind: "ServiceInstance", key: "instance", label: "Pod", macro: "instances" },
  EndpointList: { kind: "Endpoint", key: "endpoint", label: "Endpoint", macro: "endpoints" },
});
/** Entities whose values are asked: those with the most calls. */
const MOST_ENTITIES = 200;

/**
 * What a list of entities shows: its rows, and what was asked for them.
 * @param {Widget} widget @param {string} list kind of list @param {Record<string, string>} params
 */
export function useEntities(widget, list, params) {
  const { kind, key, macro } = OF_LISTS[list];
  const of = key === "service" ? "" : `, of_service := ${literal(params.service ?? "")}`;
  const columns = key === "service" ? "service" : `service, ${key}`;
  const names = useAnswer(`SELECT ${columns}\nFROM ${macro}(${between.value}${of})\nORDER BY calls_per_minute DESC NULLS LAST\nLIMIT ${MOST_ENTITIES + 1}`);
  const entities = (names.table?.rows ?? []).slice(0, MOST_ENTITIES);
  const expressions = /** @type {string[]} */ (widget.expressions ?? []);
  const asked = entities.flatMap((row) => expressions.map((expression) => ({ expression, entity: graphqlEntity(kind, row) })));
  const answer = useExpressions(asked);
  const width = expressions.length;
  const rows = entities.map((row, at) => ({ ...row, ...Object.fromEntries(expressions.map((_, one) => [`m${one}`, numberOf(answer.results[at * width + one])])) }));
  return {
    asked,
    rows,
    names,
    isPending: names.isPending || answer.isPending,
    error: names.error ?? answer.error ?? firstError(answer.results),
    isCut: (names.table?.rows.length ?? 0) > MOST_ENTITIES,
    table: /** @type {Rows} */ ({
      columns: [...columns.split(", ").map((name) => ({ name, type: "VARCHAR" })), ...expressions.map((_, at) => ({ name: headOf(widget, at), type: "DOUBLE" }))],
      rows: rows.map((row) => ({ ...row, ...Object.fromEntries(expressions.map((_, at) => [headOf(widget, at), row[`m${at}`]])) })),
      truncated: false,
    }),
  };
}

/** @param {Result[]} results */
export function firstError(results) {
  const problem = results.find(({ error }) => error)?.error;
  return problem ? { problem, remedy: "correct the expression of this panel", kind: "mqe", status: 200 } : null;
}

/** @param {Widget} widget @param {number} at */
function headOf(widget, at) {
  const [label, unit] = [labelOf(widget, at) || widget.expressions[at], unitOf(widget, at)];
  return unit ? `${label} (${unit})` : label;
}

/** The number that a result is: its first, or the last of a series. @param {Result | undefined} result */
export function numberOf(result) {
  const values = (result?.results[0]?.values ?? []).filter(({ value }) => value !== null);
  const value = values.at(-1)?.value;
  return value === null || value === undefined ? null : Number(value);
}

/** @param {{id: string, title: string, widget: Widget, list: string, rows: any[], isCut: boolean}} props */
export function Entities({ id, title, widget, list, rows, isCut }) {
  const { kind, key, label } = OF_LISTS[list];
  const page = pageNamed(kind, widget.graph?.dashboardName)?.id;
  return html`${isCut && html`<p class="note">These are the ${MOST_ENTITIES} with the most calls; there are more.</p>`}
    <${Table} id=${id} caption=${title} page=${20} rows=${rows} columns=${[
      { key, label, href: (/** @type {any} */ row) => entityLink(kind, row, page) },
      ...(widget.expressions ?? []).map((/** @type {string} */ expression, /** @type {number} */ at) => {
        const unit = unitOf(widget, at);
        return { key: `m${at}`, label: unit ? `${labelOf(widget, at) || expression} [${unit}]` : labelOf(widget, at) || expression, unit: "number", cell: (/** @type {any} */ row) => valueShown(row[`m${at}`], unit), hint: expression };
      }),
    ]} />`;
}

