// @ts-check
/** The whole page: the head, and the view that the address names. */

import { useEffect } from "./vendor/preact/hooks.mjs";
import { address } from "./core/address.js";
import { html } from "./core/html.js";
import { followTime, range, stored, storedError } from "./core/range.js";
import { tokenIsWanted } from "./core/asking.js";
import { Head } from "./parts/head.js";
import { TokenForm } from "./parts/token.js";
import { Fault } from "./parts/panel.js";
import { StartView } from "./views/start/view.js";
import { MapView } from "./views/map/view.js";
import { ServiceView } from "./views/service/view.js";
import { PodView } from "./views/pod/view.js";
import { EdgeView } from "./views/edge/view.js";
import { EndpointView } from "./views/endpoint/view.js";
import { UnknownView } from "./views/unknown/view.js";
import { SqlView } from "./views/sql/view.js";
import { DashboardsView } from "./views/dashboards/view.js";
import { PageTabs, PanelPage } from "./panels/page.js";
import { kindOf, title as entityTitle } from "./panels/entity.js";

/** @type {Record<string, {title: (p: Record<string, string>) => string, view: any}>} */
const VIEWS = {
  start: { title: () => "Start", view: StartView },
  map: { title: () => "Map", view: MapView },
  service: { title: (p) => p.service, view: ServiceView },
  pod: { title: (p) => p.instance, view: PodView },
  edge: { title: (p) => `${p.source} → ${p.dest}`, view: EdgeView },
  endpoint: { title: (p) => p.endpoint, view: EndpointView },
  unknown: { title: () => "Unknown peers", view: UnknownView },
  sql: { title: () => "SQL", view: SqlView },
  dashboards: { title: () => "Dashboards", view: DashboardsView },
  // They have no view but that of their panels.
  "pod-edge": { title: (p) => entityTitle("ServiceInstanceRelation", p), view: PanelPage },
  "endpoint-edge": { title: (p) => entityTitle("EndpointRelation", p), view: PanelPage },
};

export function App() {
  useEffect(followTime, []);
  const { view, params } = address.value;
  const found = VIEWS[view];
  useEffect(() => {
    document.title = `${found ? found.title(params) : "Not found"} · framewalk`;
  });
  return html`
    <a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <${Head} />
    <main id="content" tabindex="-1">
      ${tokenIsWanted.value ? html`<${TokenForm} />` : html`<${Content} found=${found} params=${params} view=${view} />`}
    </main>`;
}

/** @param {{found: any, params: Record<string, string>, view: string}} props */
function Content({ found, params, view }) {
  if (!found) {
    return html`<h1>There is no such page</h1>
      <p>The address names “${view}”. <a href="#/start">Go to the start.</a></p>`;
  }
  if (storedError.value && stored.value === undefined) return html`<${Fault} error=${storedError.value} />`;
  if (stored.value === undefined) return html`<p class="quiet">Asking for what there is …</p>`;
  if (range.value === null && view !== "sql") {
    return html`<h1>Nothing is stored yet</h1>
      <p>The first minute appears here soon after logs come in. <a href="#/sql">Ask in SQL</a> what there is.</p>`;
  }
  const kind = kindOf(view);
  if (!kind || kind === "All") return html`<${found.view} params=${params} key=${view} />`;
  // Beside what a view is made for, there are the panels of files about the same entity.
  return html`<${PageTabs} kind=${kind} params=${params} hasView=${found.view !== PanelPage} />
    <${params.page ? PanelPage : found.view} kind=${kind} params=${params} key=${`${view} ${params.page ? "page" : ""}`} />`;
}

/** @param {Event} event */
function toContent(event) {
  // The address is the state of the page, and no place in it.
  event.preventDefault();
  document.getElementById("content")?.focus();
}
