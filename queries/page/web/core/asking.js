// @ts-check
/** Asks the server, `/sql` most of all: a few at a time, with the token of this tab, and tells when all is answered. */

import { effect, signal } from "../vendor/signals/signals.mjs";
import { useEffect, useState } from "../vendor/preact/hooks.mjs";
import { address } from "./address.js";

/**
 * @typedef {Record<string, any>} Row
 * @typedef {{columns: {name: string, type: string}[], rows: Row[], truncated: boolean}} Table
 * @typedef {{problem: string, remedy: string, kind: string, status: number}} AskError
 * @typedef {{sql: string, table: Table | null, error: AskError | null, isPending: boolean}} Answer
 */

const TOKEN = "framewalk-token";
const MOST_AT_ONCE = 4;
const MOST_KEPT = 60;
const ATTEMPTS = 4;
const AGAIN_MS = 700;

/** Whether the server asks for a token that this tab does not have. */
export const tokenIsWanted = signal(false);
/** Rises when all that is shown is to be asked again. */
export const epoch = signal(0);
/** Whether the last request reached the server. */
export const isReached = signal(true);

const underWay = signal(0);
/** @type {Map<string, Table>} */
const kept = new Map();
/** @type {(() => void)[]} */
const waiting = [];
let running = 0;

/** @param {string} token */
export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
  tokenIsWanted.value = false;
  askAgain();
}

/** Ask for all that is shown once more. */
export function askAgain() {
  kept.clear();
  epoch.value += 1;
}

/**
 * Ask a query. Raises an AskError.
 * @param {string} sql
 * @param {{maxRows?: number, signal?: AbortSignal, isFresh?: boolean}} [options]
 * @returns {Promise<Table>}
 */
export async function ask(sql, { maxRows, signal: aborted, isFresh = false } = {}) {
  const key = `${maxRows ?? ""} ${sql}`;
  const known = isFresh ? undefined : kept.get(key);
  if (known) return known;
  const body = maxRows === undefined ? { query: sql } : { query: sql, max_rows: maxRows };
  const table = /** @type {Table} */ (await request("sql", body, aborted));
  if (!isFresh) keep(key, table);
  return table;
}

/**
 * Send a request in its turn, and return what is answered. Raises an AskError.
 * @param {string} path
 * @param {object} [body] without one it is a GET
 * @param {AbortSignal} [aborted]
 * @returns {Promise<any>}
 */
export async function request(path, body, aborted) {
  underWay.value += 1;
  try {
    await turn();
    try {
      aborted?.throwIfAborted();
      return await answered(path, body, aborted);
    } finally {
      next();
    }
  } finally {
    underWay.value -= 1;
  }
}

/**
 * Ask a query while a component shows it; the last answer stays until the next is there.
 * @param {string | null} sql nothing is asked without one
 * @param {{maxRows?: number}} [options]
 * @returns {Answer}
 */
export function useAnswer(sql, { maxRows } = {}) {
  const [state, setState] = useState(/** @type {Answer} */ ({ sql: "", table: null, error: null, isPending: true }));
  const now = epoch.value;
  useEffect(() => {
    if (sql === null) return undefined;
    const control = new AbortController();
    setState((/** @type {Answer} */ before) => ({ ...before, isPending: true }));
    ask(sql, { maxRows, signal: control.signal }).then(
      (table) => control.signal.aborted || setState({ sql, table, error: null, isPending: false }),
      (error) => control.signal.aborted || setState({ sql, table: null, error: asError(error), isPending: false }),
    );
    return () => control.abort();
  }, [sql, maxRows, now]);
  return state;
}

/** @param {any} error @returns {AskError} */
export function asError(error) {
  if (error && typeof error === "object" && "problem" in error) return error;
  return { problem: String(error?.message ?? error), remedy: "reload the page", kind: "page", status: 0 };
}

/** @param {string} path @param {object} [body] @param {AbortSignal} [aborted] */
async function answered(path, body, aborted) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await sent(path, body, aborted);
    if (response.ok) return await read(response);
    const error = await refused(response);
    if (response.status === 401) tokenIsWanted.value = true;
    if (response.status !== 503 || attempt === ATTEMPTS) throw error;
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS * attempt));
    aborted?.throwIfAborted();
  }
}

/** @param {string} path @param {object} [body] @param {AbortSignal} [aborted] */
async function sent(path, body, aborted) {
  const token = sessionStorage.getItem(TOKEN);
  /** @type {Record<string, string>} */
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const method = body === undefined ? "GET" : "POST";
  try {
    const response = await fetch(`../${path}`, { method, headers, body: body && JSON.stringify(body), signal: aborted });
    isReached.value = true;
    return response;
  } catch (error) {
    if (aborted?.aborted) throw error;
    isReached.value = false;
    throw { problem: "the server does not answer", remedy: "it may be starting again: this page asks until it answers. If that takes longer, see its log", kind: "gone", status: 0 };
  }
}

/** @param {Response} response */
async function read(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    throw { problem: "the answer broke off", remedy: "ask for less", kind: "broken", status: response.status };
  }
}

/** @param {Response} response @returns {Promise<AskError>} */
async function refused(response) {
  const content = await response.json().catch(() => ({}));
  const problem = content.problem ?? `the server answered with status ${response.status}`;
  return { problem, remedy: content.remedy ?? "see its log", kind: content.kind ?? "", status: response.status };
}

/** @param {string} key @param {Table} table */
function keep(key, table) {
  kept.set(key, table);
  if (kept.size > MOST_KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
}

function turn() {
  if (running < MOST_AT_ONCE) {
    running += 1;
    return Promise.resolve();
  }
  return new Promise((resolve) => waiting.push(() => resolve(undefined)));
}

function next() {
  const first = waiting.shift();
  if (first) first();
  else running -= 1;
}

/** Tell whoever drives a browser when all is answered and drawn. */
effect(() => {
  const isBusy = underWay.value > 0;
  void address.value;
  void epoch.value;
  document.body.dataset.ready = "false";
  if (isBusy) return;
  afterDrawing(() => afterDrawing(() => {
    if (underWay.peek() === 0) document.body.dataset.ready = "true";
  }));
});

/** @param {() => void} then */
function afterDrawing(then) {
  requestAnimationFrame(() => setTimeout(then));
}
