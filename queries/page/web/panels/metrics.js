// @ts-check
/** The metrics of the store by name: for completion, and to say why a panel is empty. */

import { useAnswer } from "../core/asking.js";

/** @typedef {{name: string, scope: string, unit: string | null, definition: string}} Metric */

const SQL = "SELECT name, scope, unit, definition\nFROM metrics\nORDER BY name";
export const FUNCTIONS = ["avg", "sum", "min", "max", "count", "latest", "abs", "ceil", "floor", "round", "top_n", "increase", "rate", "relabels", "aggregate_labels", "sort_values", "sort_label_values", "view_as_seq", "is_present"];
/** What may stand in an expression and is no metric. */
const WORDS = new Set([...FUNCTIONS, "asc", "des", "top_n_of", "baseline", "attr0", "attr1", "attr2", "attr3", "attr4", "attr5", "value", "upper", "lower", "true", "false"]);

/** @returns {Metric[]} */
export function useMetrics() {
  return /** @type {Metric[]} */ (useAnswer(SQL).table?.rows ?? []);
}

/** The metrics that an expression names and the store does not have. @param {string} expression @param {Metric[]} metrics */
export function notStored(expression, metrics) {
  const known = new Set(metrics.map(({ name }) => name));
  const bare = expression.replace(/'[^']*'|"[^"]*"/g, "''").replace(/\{[^}]*\}/g, "");
  const names = bare.match(/[A-Za-z_][A-Za-z0-9_]*(?!\s*=\s*')/g) ?? [];
  return [...new Set(names.filter((name) => name.includes("_") && !WORDS.has(name) && !known.has(name)))];
}
