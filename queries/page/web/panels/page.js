// @ts-check
/** A page of panels about an entity, and the tabs by which it is reached. */

import { useEffect, useState } from "../vendor/preact/hooks.mjs";
import { address, change, changed, link } from "../core/address.js";
import { asError } from "../core/asking.js";
import { html } from "../core/html.js";
import { Fault } from "../parts/panel.js";
import { useExpressions } from "./asking.js";
import { graphqlEntity, KINDS, kindOf, named, title } from "./entity.js";
import { numberOf } from "./kinds/lists.js";
import { addPanel, canEdit, pageOf, pages, pagesError, pagesOf, wantPages } from "./pages.js";
import { WidgetPanel } from "./widget.js";

/**
 * @typedef {import("./pages.js").Widget} Widget
 * @typedef {{kind: string, params: Record<string, string>, page: string}} About
 */

/** What else there is to see of an entity. @param {{kind: string, params: Record<string, string>, hasView?: boolean}} props */
export function PageTabs({ kind, params, hasView = true }) {
  useEffect(wantPages, []);
  const own = pagesOf(kind);
  if (!own.length) return null;
  const chosen = params.page ?? (hasView ? "" : own[0].id);
  const of = named(kind, params);
  return html`<nav class="pages" aria-label="What is shown of this ${KINDS[kind].word}">
    ${hasView && html`<a href=${link(KINDS[kind].view, of)} aria-current=${chosen === "" ? "page" : undefined}>Overview</a>`}
    ${own.map(({ id, page }) => html`<a key=${id} href=${link(KINDS[kind].view, { ...of, page: id })} aria-current=${chosen === id ? "page" : undefined}>${page.name ?? id}</a>`)}
  </nav>`;
}

/** @param {{params: Record<string, string>, kind?: string}} props */
export function PanelPage({ params, kind = kindOf(address.value.view) ?? "All" }) {
  useEffect(wantPages, []);
  if (pagesError.value) return html`<${Fault} error=${pagesError.value} />`;
  if (pages.value === undefined) return html`<p class="quiet">Asking for the pages of panels …</p>`;
  const found = params.page ? pageOf(params.page) : pagesOf(kind)[0];
  if (!found) {
    return html`<h1>There is no such page of panels</h1><p><a href=${link("dashboards")}>See which there are.</a></p>`;
  }
  return html`<h1>${title(kind, params)}</h1>
    <p class="lead"><${Lead} kind=${kind} params=${params} /> ${found.page.name}</p>
    <${Widgets} widgets=${found.page.children ?? []} path=${[]} kind=${kind} params=${params} page=${found.id} />`;
}

/** @param {{kind: string, params: Record<string, string>}} props */
function Lead({ kind, params }) {
  const of = (/** @type {string} */ service) => html`<a href=${service === "Unknown" ? link("unknown") : link("service", { service })}>${service}</a>`;
  if (kind === "ServiceInstance" || kind === "Endpoint") return html`Of ${of(params.service)} ·`;
  if (kind === "ServiceInstanceRelation" || kind === "EndpointRelation") {
    return html`<a href=${link("edge", { source: params.source, dest: params.dest })}>${params.source} → ${params.dest}</a> ·`;
  }
  return null;
}

/** @param {About & {widgets: Widget[], path: number[]}} props */
function Widgets({ widgets, path, kind, params, page }) {
  // Where a file has them: row by row.
  const placed = widgets.map((widget, at) => ({ widget, at })).sort((a, b) => (a.widget.y ?? 0) - (b.widget.y ?? 0) || (a.widget.x ?? 0) - (b.widget.x ?? 0));
  const first = placed.find(({ widget }) => widget.type === "Tab");
  return html`<div class="grid">
    ${placed.map(({ widget, at }) => {
      const own = [...path, at];
      if (widget.type === "TimeRange") return null;
      return widget.type === "Tab"
        ? html`<${Tabs} key=${at} widget=${widget} path=${own} name=${!path.length && widget === first?.widget ? "tab" : `tab.${own.join(".")}`} kind=${kind} params=${params} page=${page} />`
        : html`<${WidgetPanel} key=${at} widget=${widget} path=${own} kind=${kind} params=${params} page=${page} />`;
    })}
  </div>
  ${canEdit.value && html`<${Adding} page=${page} path=${path} />`}`;
}

/** One panel more, which is open to be changed. @param {{page: string, path: number[]}} props */
function Adding({ page, path }) {
  const [error, setError] = useState(/** @type {import("../core/asking.js").AskError | null} */ (null));
  const add = async () => {
    setError(null);
    try {
      change({ edit: `w-${(await addPanel(page, path)).join("-")}` }, { replaces: true });
    } catch (one) {
      setError(asError(one));
    }
  };
  return html`<p class="buttons"><button type="button" onClick=${add}>Add a panel</button></p>
    ${error && html`<${Fault} error=${error} />`}`;
}

/** One of several groups. A tab whose expression gives 0 is hidden. @param {About & {widget: Widget, path: number[], name: string}} props */
function Tabs({ widget, path, name, kind, params, page }) {
  const tabs = /** @type {Widget[]} */ (widget.children ?? []);
  const entity = graphqlEntity(kind, params);
  const conditions = tabs.filter(({ expression }) => expression);
  const { results } = useExpressions(conditions.map(({ expression }) => ({ expression, entity })));
  const hidden = new Set(conditions.filter((_, at) => numberOf(results[at]) === 0));
  const visible = tabs.filter((tab) => !hidden.has(tab));
  const chosen = visible.find((tab) => tab.name === address.value.params[name]) ?? visible[0];
  if (!chosen) return null;
  return html`<section class="tabs">
    <nav aria-label="Groups of panels">${visible.map((tab) => html`<a key=${tab.name} href=${changed({ [name]: tab === visible[0] ? "" : tab.name, panel: "", edit: "" })}
      aria-current=${tab === chosen ? "page" : undefined}>${tab.name}</a>`)}</nav>
    <${Widgets} widgets=${chosen.children ?? []} path=${[...path, tabs.indexOf(chosen)]} key=${tabs.indexOf(chosen)} kind=${kind} params=${params} page=${page} />
  </section>`;
}
