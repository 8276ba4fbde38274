// @ts-check
/** All pages of panels, and the entity that one of them is to be about. */

import { useEffect, useState } from "../../vendor/preact/hooks.mjs";
import { change, link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { Fault, Nothing, Panel } from "../../parts/panel.js";
import { Table } from "../../parts/table.js";
import { entityLink, KINDS } from "../../panels/entity.js";
import { PanelPage } from "../../panels/page.js";
import { canEdit, kindsOfPages, pageOf, pages, pagesError, pagesOf, wantPages } from "../../panels/pages.js";

/** @param {{params: Record<string, string>}} props */
export function DashboardsView({ params }) {
  useEffect(wantPages, []);
  if (pagesError.value) return html`<h1>Dashboards</h1><${Fault} error=${pagesError.value} />`;
  if (pages.value === undefined) return html`<p class="quiet">Asking for the pages of panels …</p>`;
  const found = pageOf(params.page);
  if (found?.page.entity === "All") return html`<${PanelPage} kind="All" params=${params} />`;
  if (found && KINDS[found.page.entity]) return html`<${Choice} page=${found} words=${params.filter ?? ""} />`;
  const odd = (pages.value ?? []).filter(({ page }) => !KINDS[page.entity]);
  return html`<h1>Dashboards</h1>
    <p class="lead">Pages of panels, as files. ${canEdit.value ? "Panels can be changed here; what is changed is kept beside the files." : "They are changed in their files."}</p>
    ${kindsOfPages().map((kind) => html`<section class="shelf" key=${kind}>
      <h2>${capital(kind === "All" ? KINDS[kind].word : `of one ${KINDS[kind].word}`)}</h2>
      <ul>${pagesOf(kind).map(({ id, page }) => html`<li key=${id}><a href=${link("dashboards", { page: id })}>${page.name ?? id}</a>
        <span class="quiet"> ${count(page)} panels</span></li>`)}</ul>
    </section>`)}
    ${odd.length > 0 && html`<p class="quiet">${odd.map(({ page }) => page.name).join(", ")}: about ${[...new Set(odd.map(({ page }) => page.entity))].join(", ")}, of which framewalk has nothing.</p>`}`;
}

/** @param {string} text */
function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** @param {any} page @returns {number} */
function count(page) {
  return (page.children ?? []).reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + (one.type === "Tab" ? (one.children ?? []).reduce((/** @type {number} */ all, /** @type {any} */ tab) => all + count(tab), 0) : 1), 0);
}

/** @param {{page: import("../../panels/pages.js").Page, words: string}} props */
function Choice({ page: { id, page }, words }) {
  const kind = KINDS[page.entity];
  const [typed, setTyped] = useState(words);
  const answer = useAnswer(kind.choices(words));
  useEffect(() => {
    const timer = setTimeout(() => change({ filter: typed }, { replaces: true }), 250);
    return () => clearTimeout(timer);
  }, [typed]);
  const names = Object.keys(kind.names);
  return html`<h1>${page.name}</h1>
    <p class="lead">It is about one ${kind.word}: choose which. <a href=${link("dashboards")}>Other pages</a></p>
    <p><label>Filter <input type="search" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.target.value)} /></label></p>
    <${Panel} id="choices" title=${capital(`${kind.word}s`.replace("pair of pods", "pairs of pod").replace("pair of endpoints", "pairs of endpoint").replace(/ss$/, "s"))} answer=${answer}>
      ${answer.table?.rows.length
        ? html`<${Table} id="choices" caption="Choices" page=${50} rows=${answer.table.rows} columns=${names.map((name, at) => ({
            key: name, label: name.replace("_", " "),
            href: at === names.length - 1 ? (/** @type {any} */ row) => entityLink(page.entity, row, id) : undefined,
          }))} />`
        : html`<${Nothing} answer=${answer}>None ${words ? "has that in its name" : "in this range"}.<//>`}
    <//>`;
}

