// @ts-check
/** Pages of panels: those of files, as they were edited; and how an edit is kept. */

import { signal } from "../vendor/signals/signals.mjs";
import { asError, request } from "../core/asking.js";
import { askGraphql } from "./asking.js";
import { KINDS } from "./entity.js";

/**
 * @typedef {Record<string, any>} Widget as the file has it
 * @typedef {{id: string, page: Widget}} Page
 */

/** Undefined until they are known. */
export const pages = signal(/** @type {Page[] | undefined} */ (undefined));
export const pagesError = signal(/** @type {import("../core/asking.js").AskError | null} */ (null));
/** Whether edits are kept. */
export const canEdit = signal(false);

let isAsked = false;

/** Ask for them once; what failed is asked for again by the next who wants them. */
export function wantPages() {
  if (isAsked) return;
  isAsked = true;
  readPages().catch((error) => {
    pagesError.value = asError(error);
    isAsked = false;
  });
}

async function readPages() {
  // In turn: where there is no GraphQL, that is what is told.
  const found = await askGraphql("{ getAllTemplates { id configuration } }");
  const settings = await request("debugging/config/dump");
  pages.value = found.getAllTemplates.map(parsed).filter(Boolean);
  canEdit.value = settings["query.graphql.enableUpdateUITemplate"] === "true";
  pagesError.value = null;
}

/** @param {{id: string, configuration: string}} one @returns {Page | null} */
function parsed({ id, configuration }) {
  try {
    const page = JSON.parse(configuration);
    return page && typeof page === "object" ? { id, page } : null;
  } catch {
    return null;
  }
}

/** Those of a kind of entity, the default first. @param {string} kind */
export function pagesOf(kind) {
  const own = (pages.value ?? []).filter(({ page }) => page.entity === kind);
  return own.sort((a, b) => Number(b.page.isRoot || b.page.isDefault || false) - Number(a.page.isRoot || a.page.isDefault || false));
}

/** @param {string | undefined} id */
export function pageOf(id) {
  return (pages.value ?? []).find((one) => one.id === id);
}

/** The page that another names, of a kind of entity; or the first of that kind. @param {string} kind @param {string} [name] */
export function pageNamed(kind, name) {
  const own = pagesOf(kind);
  return own.find(({ page }) => page.name === name) ?? own[0];
}

/** The kinds of entities that pages are of, in the order in which people look for them. */
export function kindsOfPages() {
  return Object.keys(KINDS).filter((kind) => pagesOf(kind).length);
}

/**
 * Keep a page with one of its widgets changed. Raises an AskError.
 * @param {string} id @param {number[]} path of the widget @param {(siblings: Widget[], at: number) => void} change
 */
export async function savePage(id, path, change) {
  // As it is now: somebody else may have changed another of its panels.
  const { getTemplate } = await askGraphql("query ($i: String!) { getTemplate(id: $i) { id configuration } }", { i: id });
  const page = parsed(getTemplate)?.page ?? {};
  const [siblings, at] = placeOf(page, path);
  change(siblings, at);
  await keep(id, page);
}

/**
 * Keep a page with one panel more, below all others; returns the path of that. Raises an AskError.
 * @param {string} id @param {number[]} path of the tab that it is in, if any @returns {Promise<number[]>}
 */
export async function addPanel(id, path) {
  let added = path;
  await savePage(id, [...path, 0], (siblings) => {
    added = [...path, siblings.length];
    const y = Math.max(0, ...siblings.map((one) => (one.y ?? 0) + (one.h ?? 0)));
    siblings.push({ x: 0, y, w: 12, h: 13, type: "Widget", graph: { type: "Line" }, widget: { title: "New panel" }, expressions: [] });
  });
  return added;
}

/** @param {string} id @param {Widget} page */
async function keep(id, page) {
  const query = "mutation ($s: DashboardSetting!) { changeTemplate(setting: $s) { status message } }";
  const { changeTemplate: told } = await askGraphql(query, { s: { id, configuration: JSON.stringify(page) } });
  if (!told.status) throw { problem: told.message, remedy: "", kind: "edit", status: 200 };
  pages.value = (pages.value ?? []).map((one) => (one.id === id ? { id, page } : one));
}

/**
 * The widgets beside one, and its place among them: a path is the place of a widget, of a tab in it,
 * of a widget in that, and so on.
 * @param {Widget} page @param {number[]} path @returns {[Widget[], number]}
 */
function placeOf(page, path) {
  let siblings = (page.children ??= []);
  for (let depth = 0; depth + 1 < path.length; depth += 2) siblings = siblings[path[depth]].children[path[depth + 1]].children ??= [];
  return [siblings, path[path.length - 1]];
}
