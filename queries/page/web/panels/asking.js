// @ts-check
/** Asks GraphQL: the expressions of all panels that are drawn at once together. */

import { useEffect, useState } from "../vendor/preact/hooks.mjs";
import { asError, epoch, request } from "../core/asking.js";
import { range, step } from "../core/range.js";

/**
 * @typedef {import("./entity.js").GraphqlEntity} GraphqlEntity
 * @typedef {{expression: string, entity: GraphqlEntity}} Asked
 * @typedef {{serviceName: string, serviceInstanceName: string | null, endpointName: string | null, scope: string}} Owner
 * @typedef {{id: string | null, value: string | null, owner?: Owner | null}} Value
 * @typedef {{metric: {labels: {key: string, value: string}[]}, values: Value[]}} Series
 * @typedef {{type: string, error: string | null, results: Series[]}} Result
 * @typedef {import("../core/asking.js").AskError} AskError
 * @typedef {{results: Result[], error: AskError | null, isPending: boolean}} Answer
 * @typedef {{key: string, asked: Asked, duration: object, resolve: (result: Result) => void, reject: (error: any) => void}} Waiting
 */

/** Expressions of one document: a server reads each of its texts once. */
const MOST_TOGETHER = 40;
const MOST_KEPT = 2_000;
const MINUTE_FORM = /** @type {Record<string, number>} */ ({ minute: 16, hour: 13, day: 10 });
const RESULT = "type error results { metric { labels { key value } } values { id value owner { scope serviceName serviceInstanceName endpointName } } }";

/** @type {Map<string, Result>} */
const kept = new Map();
let keptEpoch = 0;
/** @type {Waiting[]} */
let queue = [];

/**
 * Ask a document. Raises an AskError.
 * @param {string} query @param {object} [variables] @returns {Promise<any>}
 */
export async function askGraphql(query, variables = {}) {
  let answer;
  try {
    answer = await request("graphql", { query, variables });
  } catch (error) {
    if (asError(error).status !== 404) throw error;
    throw { problem: "this server does not answer GraphQL, by which panels are asked", remedy: "turn it on (SW_QUERY=graphql)", kind: "off", status: 404 };
  }
  if (answer.errors?.length) throw { problem: answer.errors[0].message, remedy: "", kind: "graphql", status: 200 };
  return answer.data;
}

/** The range that is shown, as GraphQL has it: both ends are in it. */
export function duration() {
  const { since, until } = range.value ?? { since: 0, until: 0 };
  const { resolution } = step.value;
  const written = (/** @type {number} */ at) =>
    new Date(at).toISOString().slice(0, MINUTE_FORM[resolution]).replace("T", " ").replace(":", "");
  return { start: written(since), end: written(Math.max(since, until - 60_000)), step: resolution.toUpperCase() };
}

/**
 * Ask expressions while a component shows them; the last answer stays until the next is there.
 * @param {Asked[]} asked
 * @returns {Answer}
 */
export function useExpressions(asked) {
  const [state, setState] = useState(/** @type {Answer} */ ({ results: [], error: null, isPending: true }));
  const during = duration();
  const key = JSON.stringify([during, asked]);
  const now = epoch.value;
  useEffect(() => {
    let isWanted = true;
    setState((/** @type {Answer} */ before) => ({ ...before, isPending: true }));
    Promise.all(asked.map((one) => result(one, during))).then(
      (results) => isWanted && setState({ results, error: null, isPending: false }),
      (error) => isWanted && setState({ results: [], error: asError(error), isPending: false }),
    );
    return () => {
      isWanted = false;
    };
  }, [key, now]);
  return state;
}

/**
 * Return the SQL by which expressions are read.
 * @param {Asked[]} asked @returns {Promise<string[]>}
 */
export async function explained(asked) {
  if (!asked.length) return [];
  const data = await askGraphql(...document(asked.slice(0, MOST_TOGETHER), duration(), ", debug: true", "error debuggingTrace { spans { operation msg } }"));
  const traces = Object.values(data).map((one) => one.debuggingTrace).filter(Boolean);
  return (traces[0]?.spans ?? []).filter((/** @type {any} */ one) => one.operation === "SQL").map((/** @type {any} */ one) => one.msg);
}

/** @param {Asked} asked @param {object} during @returns {Promise<Result>} */
function result(asked, during) {
  if (keptEpoch !== epoch.peek() || kept.size > MOST_KEPT) kept.clear();
  keptEpoch = epoch.peek();
  const key = JSON.stringify([during, asked]);
  const known = kept.get(key);
  if (known) return Promise.resolve(known);
  return new Promise((resolve, reject) => {
    if (!queue.length) queueMicrotask(flush);
    queue.push({ key, asked, duration: during, resolve, reject });
  });
}

function flush() {
  const waiting = queue;
  queue = [];
  const byDuration = Map.groupBy(waiting, (one) => JSON.stringify(one.duration));
  for (const together of byDuration.values()) {
    for (let at = 0; at < together.length; at += MOST_TOGETHER) void answerAll(together.slice(at, at + MOST_TOGETHER));
  }
}

/** @param {Waiting[]} together */
async function answerAll(together) {
  try {
    const data = await askGraphql(...document(together.map((one) => one.asked), together[0].duration, "", RESULT));
    together.forEach(({ key, resolve }, at) => {
      kept.set(key, data[`r${at}`]);
      resolve(data[`r${at}`]);
    });
  } catch (error) {
    for (const { reject } of together) reject(error);
  }
}

/**
 * What differs from time to time is in variables: the server then knows the text.
 * @param {Asked[]} asked @param {object} during @param {string} option @param {string} wanted
 * @returns {[string, object]}
 */
function document(asked, during, option, wanted) {
  const entities = [...new Set(asked.map(({ entity }) => JSON.stringify(entity)))];
  /** @type {Record<string, any>} */
  const variables = { d: during };
  entities.forEach((one, at) => (variables[`e${at}`] = JSON.parse(one)));
  const fields = asked.map(({ expression, entity }, at) => {
    variables[`x${at}`] = expression;
    const of = entities.indexOf(JSON.stringify(entity));
    return `r${at}: execExpression(expression: $x${at}, entity: $e${of}, duration: $d${option}) { ...R }`;
  });
  const declared = [...entities.map((_, at) => `$e${at}: Entity!`), ...asked.map((_, at) => `$x${at}: String!`)];
  return [`query ($d: Duration!, ${declared.join(", ")}) {\n${fields.join("\n")}\n}\nfragment R on ExpressionResult { ${wanted} }`, variables];
}

/**
 * Raise an AskError where an expression is none, or about another entity.
 * @param {string[]} expressions @param {GraphqlEntity} entity @param {boolean} isOfOthers whether the entity is another one
 */
export async function checked(expressions, entity, isOfOthers) {
  if (!expressions.length) throw { problem: "there is no expression", remedy: "write one", kind: "mqe", status: 0 };
  const data = await askGraphql(...document(expressions.map((expression) => ({ expression, entity })), duration(), "", "error"));
  const wrong = Object.values(data).map((one) => one.error).filter((error) => error && !(isOfOthers && error.includes("needs an entity")));
  if (wrong.length) throw { problem: wrong[0], remedy: "correct the expression", kind: "mqe", status: 0 };
}
