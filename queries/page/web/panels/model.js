// @ts-check
/** What a widget of a file says of itself: its kind, title, labels and units. */

/**
 * @typedef {import("./pages.js").Widget} Widget
 * @typedef {import("./asking.js").Series} Series
 * @typedef {{label: string, unit: string, values: (number | null)[], ids: (string | null)[], owners: (any)[]}} Named
 */

export const CHARTS = ["Line", "Area", "Bar"];
export const LISTS = ["ServiceList", "InstanceList", "EndpointList"];
/** What can be made of a widget that has expressions, in the page. */
export const CHOICES = [...CHARTS, "Card", "TopList", "Table", "HeatMap"];

const LIST_TITLES = /** @type {Record<string, string>} */ ({ ServiceList: "Services", InstanceList: "Pods", EndpointList: "Endpoints" });
const SHORT = /** @type {Record<string, string>} */ ({ nanoseconds: "ns", microseconds: "µs", milliseconds: "ms", seconds: "s", count: "" });

/** @param {Widget} widget @returns {string} */
export function kindOf(widget) {
  return widget.type === "Widget" ? (widget.graph?.type ?? "") : widget.type;
}

/** What stands over it. Texts may be percent-encoded. @param {Widget} widget @returns {string} */
export function titleOf(widget) {
  const given = decoded(widget.widget?.title ?? widget.widget?.name ?? "");
  const text = given || LIST_TITLES[kindOf(widget)] || (widget.expressions ?? [])[0] || kindOf(widget);
  const unit = unitInTitle(text);
  return unit === null ? text : text.slice(0, text.lastIndexOf("(")).trim();
}

/** @param {string | undefined} text */
export function decoded(text) {
  try {
    return decodeURIComponent(text ?? "");
  } catch {
    return text ?? "";
  }
}

/** The unit at the end of a title, such as (KB). @param {string} text @returns {string | null} */
function unitInTitle(text) {
  const found = /\(([^()]{1,16})\)\s*$/.exec(text)?.[1].trim() ?? null;
  return found !== null && /^(%|[KMG]i?B|B|m|Mi|ns|us|µs|ms|s|nanoseconds|microseconds|milliseconds|seconds|.* ?\/ ?(min|s|h))$/i.test(found) ? found : null;
}

/** @param {string} unit as a file writes it */
function shortUnit(unit) {
  return SHORT[unit.toLowerCase()] ?? unit;
}

/** The unit of one of its expressions. @param {Widget} widget @param {number} at */
export function unitOf(widget, at) {
  const unit = widget.metricConfig?.[at]?.unit;
  if (unit) return shortUnit(decoded(unit));
  return shortUnit(unitInTitle(decoded(widget.widget?.title ?? "")) ?? "");
}

/** The label of one of its expressions. @param {Widget} widget @param {number} at */
export function labelOf(widget, at) {
  return decoded(widget.metricConfig?.[at]?.label) || "";
}

/**
 * The series of all expressions of a widget, each with what a person calls it.
 * @param {Widget} widget @param {import("./asking.js").Result[]} results @returns {Named[]}
 */
export function namedSeries(widget, results) {
  /** @type {Named[]} */
  const found = [];
  const isAlone = results.filter(({ results: series }) => series.length).length < 2;
  results.forEach((result, at) => {
    for (const series of result.results) {
      const given = labelOf(widget, at);
      const labels = series.metric.labels;
      const of = labels.length ? (configured(widget, at, labels) ?? labelText(labels)) : "";
      const label = of ? (isAlone || !given || given.includes(",") ? of : `${given} ${of}`) : given || shortExpression(widget.expressions?.[at] ?? "");
      found.push({
        label: unique(label, found),
        unit: unitOf(widget, at),
        values: series.values.map(({ value }) => (value === null || value === undefined ? null : Number(value))),
        ids: series.values.map(({ id }) => id),
        owners: series.values.map(({ owner }) => owner ?? null),
      });
    }
  });
  return found;
}

/** Labels that the file gives to values of a label: "P50,P99" for "50,99". @param {Widget} widget @param {number} at @param {{key: string, value: string}[]} labels */
function configured(widget, at, labels) {
  const { label = "", labelsIndex = "" } = widget.metricConfig?.[at] ?? {};
  const [names, values] = [String(label).split(","), String(labelsIndex).split(",")].map((all) => all.map((one) => one.trim()));
  if (!labelsIndex || names.length !== values.length || labels.length !== 1) return undefined;
  return names[values.indexOf(labels[0].value)];
}

/** @param {{key: string, value: string}[]} labels */
export function labelText(labels) {
  if (labels.length !== 1) return labels.map(({ key, value }) => `${key}=${value}`).join(",");
  const [{ key, value }] = labels;
  if (key === "p" && /^\d+$/.test(value)) return `p${value}`;
  return value || `${key}=`;
}

/** @param {string} text @param {Named[]} found */
function unique(text, found) {
  const same = found.filter(({ label }) => label === text || label.startsWith(`${text} (`)).length;
  return same ? `${text} (${same + 1})` : text;
}

/** An expression as a label: metrics without what all have. @param {string} text */
function shortExpression(text) {
  const short = text.replaceAll(/kubernetes_service_((instance_|endpoint_)?relation_)?/g, "").replace(/^(latest|avg|sum)\((.*)\)$/, "$2");
  return short.length > 48 ? `${short.slice(0, 47)}…` : short;
}

/** @param {Widget} widget */
export function tipOf(widget) {
  return decoded(widget.widget?.tips);
}

/** What a value means, where the file says so. @param {Widget} widget @param {string} text */
export function mapped(widget, text) {
  for (const [pattern, meaning] of Object.entries(widget.graph?.valueMappings ?? {})) {
    if (pattern === text) return String(meaning);
    try {
      if (new RegExp(`^(?:${pattern})$`).test(text)) return String(meaning);
    } catch {
      // It is a plain text then.
    }
  }
  return text;
}
