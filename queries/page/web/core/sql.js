// @ts-check
/** SQL is written here, and read by people: it stands under every number. */

/** @param {string} text @returns {string} a text in SQL */
export function literal(text) {
  return `'${text.replaceAll("'", "''")}'`;
}

/** @param {number} ms since 1970 @returns {string} a time in SQL, in UTC */
export function timeLiteral(ms) {
  const text = new Date(ms).toISOString().replace("T", " ");
  return `'${text.slice(0, text.slice(17, 19) === "00" ? 16 : 19)}'`;
}

/** @param {string} text a time in UTC, as the server writes it @returns {number} ms since 1970 */
export function msOf(text) {
  return Date.parse(`${text}Z`);
}

/** The namespace of a service, in SQL. @param {string} column */
export function namespaceOf(column) {
  return `coalesce(nullif(regexp_extract(${column}, '\\.([^.]+)$', 1), ''), '-')`;
}

/** The share of two counts in percent, in SQL. @param {string} part @param {string} all */
export function percent(part, all) {
  return `round(100 * (${part}) / nullif(${all}, 0), 2)`;
}
