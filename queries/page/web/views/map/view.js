// @ts-check
/** The map: who calls whom, by namespace or by service, and the same as a list. */

import { useEffect, useMemo, useRef, useState } from "../../vendor/preact/hooks.mjs";
import { address, change, changed, link } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { Fault, Nothing, Panel } from "../../parts/panel.js";
import { failedTone, Table } from "../../parts/table.js";
import { boxesSql, edgesSql, groupOf, isService, MOST_DRAWN, MOST_OPEN, nameOf, namespacesSql, words } from "./data.js";
import { Picture } from "./picture.js";

const TYPED_MS = 250;
/** @type {any[]} */
const NONE = [];

export function MapView() {
  const { params } = address.value;
  const namespaces = useAnswer(namespacesSql());
  const all = namespaces.table?.rows ?? NONE;
  const open = openOf(params.open, all);
  const wish = { open, ...words(params.filter ?? ""), problems: params.problems === "1", unknown: params.unknown === "1" };
  const isKnown = namespaces.table !== null;
  const boxes = useAnswer(isKnown ? boxesSql(wish) : null);
  const edges = useAnswer(isKnown ? edgesSql(wish) : null);
  // Both parts of one picture, or what was there before.
  const isWhole = !boxes.isPending && !edges.isPending;
  const last = useRef({ boxes: NONE, edges: NONE, rest: NONE });
  const drawn = useMemo(() => (isWhole ? seen(boxes.table?.rows ?? NONE, edges.table?.rows ?? NONE, wish) : last.current), [isWhole, boxes.table, edges.table]);
  last.current = drawn;
  const toggle = (/** @type {string} */ name) => {
    const now = open === "all" ? new Set(all.map((row) => row.namespace)) : new Set(open);
    if (!now.delete(name)) now.add(name);
    change({ open: now.size === all.length ? "*" : now.size ? [...now].sort().join(",") : "none", chosen: "" });
  };
  const choose = (/** @type {string} */ id) => change({ chosen: id }, { replaces: true });
  // What has not changed is not gone through again.
  const picture = useMemo(() => html`<${Picture} boxes=${drawn.boxes} edges=${drawn.edges} rest=${drawn.rest} chosen=${params.chosen ?? ""} onChoose=${choose} onToggle=${toggle} />`, [drawn, params.chosen, open === "all" || [...open].join()]);
  const error = namespaces.error ?? boxes.error ?? edges.error;
  return html`<h1 class="unseen">Map</h1>
    <${Controls} namespaces=${all} open=${open} onToggle=${toggle} />
    ${error && html`<${Fault} error=${error} />`}
    <div class="map">
      <section class="panel" aria-label="Picture" aria-busy=${edges.isPending ? "true" : undefined}>
        ${drawn.rest.length > 0 && html`<p class="note">The ${MOST_DRAWN.toLocaleString("en-US")} edges with the most calls are drawn, of ${(MOST_DRAWN + drawn.rest.length).toLocaleString("en-US")}, and all of what is chosen; the list has all.</p>`}
        ${drawn.boxes.length
          ? picture
          : html`<div class="picture"><${Nothing} answer=${edges} /></div>`}
      </section>
      <div class="lists">
        <${Chosen} id=${params.chosen ?? ""} boxes=${boxes.table?.rows ?? NONE} onToggle=${toggle} />
        <${EdgeList} answer=${edges} chosen=${params.chosen ?? ""} />
        <${BoxList} answer=${boxes} chosen=${params.chosen ?? ""} />
      </div>
    </div>`;
}

/** @param {string | undefined} text @param {any[]} namespaces @returns {Set<string> | "all"} */
function openOf(text, namespaces) {
  if (text === "*") return "all";
  if (text === "none") return new Set();
  if (text) return new Set(text.split(","));
  const services = namespaces.reduce((sum, row) => sum + row.services, 0);
  return services <= MOST_OPEN ? "all" : new Set();
}

/** What the picture shows: the edges, their ends, and who has none unless something is filtered. @param {any[]} boxes @param {any[]} edges @param {any} wish */
function seen(boxes, edges, wish) {
  const drawn = edges.slice(0, MOST_DRAWN);
  const rows = new Map(boxes.map((row) => [row.box, row]));
  const ids = new Set(drawn.flatMap(({ source, dest }) => [source, dest]));
  const isFiltered = wish.with.length > 0 || wish.problems;
  if (!isFiltered) for (const { box } of boxes) ids.add(box);
  const found = [...ids].sort().map((id) => ({ id, group: groupOf(id), row: rows.get(id) ?? null }));
  return { boxes: found, edges: drawn, rest: edges.slice(MOST_DRAWN) };
}

/** @param {{namespaces: any[], open: Set<string> | "all", onToggle: (name: string) => void}} props */
function Controls({ namespaces, open, onToggle }) {
  const { params } = address.value;
  const [text, setText] = useState(params.filter ?? "");
  const timer = useRef(0);
  useEffect(() => setText(params.filter ?? ""), [params.filter]);
  const type = (/** @type {string} */ value) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => change({ filter: value.trim(), chosen: "" }, { replaces: true }), TYPED_MS);
  };
  const isOpen = (/** @type {string} */ name) => open === "all" || open.has(name);
  const flag = (/** @type {string} */ name) => (/** @type {any} */ event) => change({ [name]: event.target.checked ? "1" : "", chosen: "" });
  return html`<div class="controls">
    <label class="filter">Filter <input type="search" value=${text} placeholder="reviews -prometheus" title="Parts of names; those after a minus are left out"
      onInput=${(/** @type {any} */ event) => type(event.target.value)} /></label>
    <label><input type="checkbox" checked=${params.problems === "1"} onChange=${flag("problems")} /> Only problems (1% or more fail)</label>
    <label><input type="checkbox" checked=${params.unknown === "1"} onChange=${flag("unknown")} /> Unknown peers</label>
    <details class="namespaces">
      <summary>Namespaces (${namespaces.filter(({ namespace }) => isOpen(namespace)).length} of ${namespaces.length} open)</summary>
      <p><button type="button" onClick=${() => change({ open: "*" })}>Open all</button> <button type="button" onClick=${() => change({ open: "none" })}>Close all</button></p>
      <ul>${namespaces.map(({ namespace, services }) => html`<li key=${namespace}><label><input type="checkbox" checked=${isOpen(namespace)} onChange=${() => onToggle(namespace)} />
        ${nameOf(`ns/${namespace}`)} <span class="quiet">${services}</span></label></li>`)}</ul>
    </details>
  </div>`;
}

/** What is chosen, and where it leads. @param {{id: string, boxes: any[], onToggle: (name: string) => void}} props */
function Chosen({ id, boxes, onToggle }) {
  if (!id) return html`<p class="hint quiet">Click a box or an edge to see what belongs to it.</p>`;
  const [source, dest] = id.split(" > ");
  const leads = dest
    ? isService(source) && isService(dest) && html`<a href=${link("edge", { source, dest })}>Open this edge</a>`
    : isService(source) && html`<a href=${link("service", { service: source })}>Open this service</a>`;
  return html`<p class="hint"><strong>${dest ? `${nameOf(source)} → ${nameOf(dest)}` : nameOf(id)}</strong>${" "}
    ${leads}
    ${id.startsWith("ns/") && !dest && html`<button type="button" onClick=${() => onToggle(id.slice(3))}>Open namespace</button>`}
    ${!isService(source) && source.startsWith("unknown") && html` <a href=${link("unknown")}>Who they are</a>`}
    ${" "}<button type="button" class="plain" onClick=${() => change({ chosen: "" }, { replaces: true })}>Forget</button></p>`;
}

/** @param {{answer: any, chosen: string}} props */
function EdgeList({ answer, chosen }) {
  const rows = answer.table?.rows ?? NONE;
  const ofChosen = (/** @type {any} */ row) => chosen === row.source || chosen === row.dest || chosen === `${row.source} > ${row.dest}`;
  const shownRows = chosen && rows.some(ofChosen) ? rows.filter(ofChosen) : rows;
  const end = (/** @type {string} */ key) => (/** @type {any} */ row) => html`<a href=${changed({ chosen: row[key] })}>${nameOf(row[key])}</a>`;
  return html`<${Panel} id="edges" title=${shownRows === rows ? "Edges" : "Edges of what is chosen"} answer=${answer}>
    ${shownRows.length
      ? html`<${Table} id="edges" caption="Edges" page=${15} rows=${shownRows} rowClass=${(/** @type {any} */ row) => (chosen === `${row.source} > ${row.dest}` ? "chosen" : "")} columns=${[
          { key: "source", label: "Edge", cell: (/** @type {any} */ row) => html`${end("source")(row)}${" "}<br /><span class="quiet">→</span>${" "}${end("dest")(row)}` },
          { key: "calls_per_minute", label: "Calls", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "slowest_p99_ms", label: "p99", unit: "ms", hint: "Of several pairs the slowest one: percentiles do not add up" },
          { key: "bytes_per_minute", label: "Traffic", unit: "bytes_per_minute" },
          { key: "open", label: "", href: (/** @type {any} */ row) => (isService(row.source) && isService(row.dest) ? link("edge", { source: row.source, dest: row.dest }) : null), cell: (/** @type {any} */ row) => (isService(row.source) && isService(row.dest) ? "open" : "") },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}

/** @param {{answer: any, chosen: string}} props */
function BoxList({ answer, chosen }) {
  const rows = answer.table?.rows ?? NONE;
  return html`<${Panel} id="boxes" title="Boxes" answer=${answer}>
    ${rows.length
      ? html`<${Table} id="boxes" caption="Boxes" page=${15} rows=${rows} rowClass=${(/** @type {any} */ row) => (chosen === row.box ? "chosen" : "")} columns=${[
          { key: "box", label: "Name", cell: (/** @type {any} */ row) => nameOf(row.box), href: (/** @type {any} */ row) => changed({ chosen: row.box }) },
          { key: "services", label: "Services", unit: "count" },
          { key: "calls_per_minute", label: "Answered", unit: "per_minute" },
          { key: "failed_percent", label: "Failed", unit: "percent", tone: (/** @type {any} */ row) => failedTone(row.failed_percent) },
          { key: "slowest_p99_ms", label: "p99", unit: "ms", hint: "Of several services the slowest one: percentiles do not add up" },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}
