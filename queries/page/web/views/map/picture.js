// @ts-check
/** The map as a picture: moved and made larger by mouse, fingers' pinch of a pad, or keys. */

import { useEffect, useMemo, useRef } from "../../vendor/preact/hooks.mjs";
import { shown, whole } from "../../core/format.js";
import { html } from "../../core/html.js";
import { nameOf, isService } from "./data.js";
import { BOX, layout } from "../../graph/layout.js";
import { bundleOf, pathOf, wayKey } from "../../graph/routing.js";

const NARROW = 700;
/** More edges than this are drawn together, by colour; those of what is chosen by themselves. */
const MOST_SINGLE = 600;
/** Letters smaller than this share of their size cannot be read, and cost most of the time. */
const LEGIBLE = 0.34;
const READABLE = 0.7;
/** As far as this edges may bend beyond the boxes at the left and the right. */
const BENDS = 42;

/**
 * @typedef {import("../../core/asking.js").Row} Row
 * @param {{boxes: {id: string, group: string, row: Row | null}[], edges: Row[], rest: Row[], chosen: string,
 *   onChoose: (id: string) => void, onToggle: (namespace: string) => void}} props
 */
export function Picture({ boxes, edges, rest, chosen, onChoose, onToggle }) {
  const place = useRef(/** @type {SVGSVGElement | null} */ (null));
  const picture = useMemo(() => layout(boxes, /** @type {any} */ (edges)), [boxes, edges]);
  const view = useRef({ x: 0, y: 0, scale: 1, of: "" });
  useEffect(() => movable(/** @type {SVGSVGElement} */ (place.current), picture, view.current), [picture]);
  const most = Math.max(1, ...edges.map((edge) => edge.calls_per_minute));
  const near = chosen ? neighbours(chosen, [...edges, ...rest]) : null;
  const isMany = boxes.length > 150;
  const isDense = edges.length > MOST_SINGLE;
  const belongs = (/** @type {Row} */ edge) => [edge.source, edge.dest, `${edge.source} > ${edge.dest}`].includes(chosen);
  const single = isDense ? [...edges, ...rest].filter(belongs) : edges;
  // Of many edges none may hide the others.
  const thickest = Math.max(0.6, Math.min(5, 300 / edges.length));
  return html`<div class="picture ${edges.length > 150 ? "many" : ""}">
    <svg ref=${place} tabindex="0" role="group" aria-label="Map of who calls whom; the list beside it says the same. Keys: arrows move, plus and minus zoom, 0 shows all."
        onClick=${() => onChoose("")}>
      <defs>${["ok", "some", "poor", "bad"].map((tone) => html`<marker key=${tone} id="head-${tone}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5 L8 4 L0 7.5 z" class="head ${tone}" /></marker>`)}</defs>
      <g class="moved">
        ${picture.groups.map((/** @type {any} */ group) => html`<${Frame} key=${group.id} group=${group} onToggle=${onToggle} />`)}
        ${isDense && html`<${Bundles} edges=${edges} picture=${picture} isFar=${near !== null} />`}
        ${single.map((edge) => html`<${Line} key=${`${edge.source} ${edge.dest}`} edge=${edge} picture=${picture} most=${most} thickest=${thickest} chosen=${chosen} near=${near} hasHead=${true} onChoose=${onChoose} />`)}
        ${boxes.map((box) => html`<${BoxMark} key=${box.id} box=${box} at=${picture.boxes.get(box.id)} chosen=${chosen} near=${near} isTabbed=${!isMany} onChoose=${onChoose} onToggle=${onToggle} />`)}
      </g>
    </svg>
    <${Legend} />
  </div>`;
}

/** @param {{group: any, onToggle: (namespace: string) => void}} props */
function Frame({ group, onToggle }) {
  const toggle = (/** @type {Event} */ event) => {
    event.stopPropagation();
    onToggle(group.id);
  };
  return html`<g class="frame">
    <rect x=${group.x} y=${group.y} width=${group.width} height=${group.height} rx="10" />
    <g role="button" tabindex="0" aria-label="Close namespace ${group.id}" class="opener" onClick=${toggle} onKeyDown=${onEnter(toggle)}>
      <rect x=${group.x + 8} y=${group.y + 7} width="18" height="18" rx="4" /><path d="M${group.x + 12} ${group.y + 16} h10" />
    </g>
    <text x=${group.x + 33} y=${group.y + 21}>${cut(nameOf(`ns/${group.id}`), Math.floor((group.width - 44) / 7.2))}</text>
  </g>`;
}

/** @param {{box: any, at: any, chosen: string, near: Set<string> | null, isTabbed: boolean, onChoose: (id: string) => void, onToggle: (namespace: string) => void}} props */
function BoxMark({ box, at, chosen, near, isTabbed, onChoose, onToggle }) {
  const { id, row, group } = box;
  const isNamespace = id.startsWith("ns/");
  const isOther = !isService(id) && !isNamespace;
  const title = isNamespace || isOther ? nameOf(id) : group && id.endsWith(`.${group}`) ? id.slice(0, -group.length - 1) : id;
  const choose = (/** @type {Event} */ event) => {
    event.stopPropagation();
    onChoose(id === chosen ? "" : id);
  };
  const open = (/** @type {Event} */ event) => {
    event.stopPropagation();
    onToggle(id.slice(3));
  };
  const kind = ["box", isNamespace ? "namespace" : "", isOther ? "unnamed" : "", toneOf(row?.failed_percent), id === chosen ? "chosen" : "", near && !near.has(id) ? "far" : ""].join(" ");
  return html`<g class=${kind} transform="translate(${at.x} ${at.y})">
    <g role="button" tabindex=${isTabbed ? "0" : "-1"} aria-pressed=${id === chosen} aria-label="${nameOf(id)}: ${sentence(row)}" onClick=${choose} onKeyDown=${onEnter(choose)}>
      <title>${[nameOf(id), sentence(row)].join("\n")}</title>
      <rect class="body" width=${BOX.width} height=${BOX.height} rx="6" />
      <rect class="tone" width="4" height=${BOX.height} rx="2" />
      <text x="12" y=${row ? 18 : 26} class="title">${cut(title, isNamespace ? 19 : 23)}</text>
      ${row && html`<text x="12" y="33" class="numbers">${second(row, isNamespace)}</text>`}
    </g>
    ${isNamespace && html`<g role="button" tabindex=${isTabbed ? "0" : "-1"} aria-label="Open namespace ${id.slice(3)}" class="opener" onClick=${open} onKeyDown=${onEnter(open)}>
      <rect x=${BOX.width - 25} y="6" width="18" height="18" rx="4" /><path d="M${BOX.width - 21} 15 h10 m-5 -5 v10" /></g>`}
  </g>`;
}

/** @param {{edge: Row, picture: any, most: number, thickest: number, chosen: string, near: Set<string> | null, hasHead: boolean, onChoose: (id: string) => void}} props */
function Line({ edge, picture, most, thickest, chosen, near, hasHead, onChoose }) {
  const route = picture.routes.get(wayKey(edge.source, edge.dest));
  if (!route) return null;
  const path = pathOf(route);
  const id = `${edge.source} > ${edge.dest}`;
  const tone = edge.calls_per_minute ? toneOf(edge.failed_percent) || "ok" : "ok";
  const width = 1 + (thickest * Math.log1p(edge.calls_per_minute)) / Math.log1p(most);
  const isFar = near && !(chosen === id || chosen === edge.source || chosen === edge.dest);
  const choose = (/** @type {Event} */ event) => {
    event.stopPropagation();
    onChoose(id === chosen ? "" : id);
  };
  return html`<g class="edge ${tone} ${chosen === id ? "chosen" : ""} ${isFar ? "far" : near ? "near" : ""}" onClick=${choose}>
    <title>${`${nameOf(edge.source)} → ${nameOf(edge.dest)}\n${sentence(edge)}`}</title>
    <path class="hit" d=${path} />
    <path class="line" d=${path} stroke-width=${width.toFixed(2)} stroke-dasharray=${edge.calls_per_minute ? undefined : "4 4"} marker-end=${hasHead ? `url(#head-${tone})` : undefined} />
  </g>`;
}

/** All edges of one colour are one line to a browser, which draws thousands in no time. @param {{edges: Row[], picture: any, isFar: boolean}} props */
function Bundles({ edges, picture, isFar }) {
  const lines = useMemo(() => {
    const found = new Map(["ok", "some", "poor", "bad"].map((tone) => [tone, /** @type {any[]} */ ([])]));
    for (const edge of edges) {
      const route = picture.routes.get(wayKey(edge.source, edge.dest));
      if (route) found.get(edge.calls_per_minute ? toneOf(edge.failed_percent) || "ok" : "ok")?.push(route);
    }
    return [...found].map(([tone, routes]) => html`<g key=${tone} class="edge ${tone}"><path class="line" d=${bundleOf(routes)} stroke-width="1" /></g>`);
  }, [edges, picture]);
  return html`<g class="bundles ${isFar ? "far" : ""}">${lines}</g>`;
}

function Legend() {
  return html`<ul class="legend" aria-label="Legend">
    <li><svg width="26" height="10"><path class="line-ok" d="M1 5 h24" stroke-width="2" /></svg>no failures</li>
    <li><svg width="26" height="10"><path class="line-some" d="M1 5 h24" stroke-width="2" /></svg>under 1% fail</li>
    <li><svg width="26" height="10"><path class="line-poor" d="M1 5 h24" stroke-width="2" /></svg>1% or more</li>
    <li><svg width="26" height="10"><path class="line-bad" d="M1 5 h24" stroke-width="2" /></svg>5% or more</li>
    <li><svg width="34" height="10"><path class="line-ok" d="M1 5 h14" stroke-width="1" /><path class="line-ok" d="M19 5 h14" stroke-width="6" /></svg>few or many calls (logarithmic)</li>
    <li><svg width="26" height="10"><path class="line-ok" d="M1 5 h24" stroke-width="2" stroke-dasharray="4 4" /></svg>no HTTP seen</li>
  </ul>`;
}

/** @param {string} chosen @param {Row[]} edges @returns {Set<string>} the boxes that stay in sight */
function neighbours(chosen, edges) {
  const found = new Set(chosen.split(" > "));
  if (found.size === 1) {
    for (const { source, dest } of edges) {
      if (source === chosen) found.add(dest);
      if (dest === chosen) found.add(source);
    }
  }
  return found;
}

/** @param {number | null | undefined} failed in percent */
export function toneOf(failed) {
  if (!failed) return "";
  return failed >= 5 ? "bad" : failed >= 1 ? "poor" : "some";
}

/** @param {Row | null} row */
function sentence(row) {
  if (!row) return "";
  if (!row.calls_per_minute) return row.bytes_per_minute === undefined ? "no HTTP requests" : `no HTTP seen, ${whole(row.bytes_per_minute, "bytes_per_minute")}`;
  return `${whole(row.calls_per_minute, "per_minute")}, ${whole(row.failed_percent, "percent")} failed, p99 ${whole(row.slowest_p99_ms, "ms")}`;
}

/** @param {Row} row @param {boolean} isNamespace */
function second(row, isNamespace) {
  const rate = row.calls_per_minute ? whole(row.calls_per_minute, "per_minute") : "no HTTP";
  if (isNamespace) return `${row.services} service${row.services === 1 ? "" : "s"}, ${rate}`;
  return row.calls_per_minute ? `${rate}, p99 ${shown(row.slowest_p99_ms, "ms")} ms` : rate;
}

/** @param {string} text @param {number} most */
function cut(text, most) {
  return text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text;
}

/** @param {(event: Event) => void} act */
function onEnter(act) {
  return (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act(event);
  };
}

/**
 * Let a picture be moved and zoomed; shows all of it first. Gives what ends it.
 * @param {SVGSVGElement} svg
 * @param {{width: number, height: number}} picture
 * @param {{x: number, y: number, scale: number, of: string}} view which stays where new numbers come to the same picture
 */
function movable(svg, picture, view) {
  const inside = /** @type {SVGGElement} */ (svg.querySelector(".moved"));
  const apply = () => {
    inside.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
    svg.classList.toggle("small", view.scale < LEGIBLE);
  };
  const sizes = () => [svg.clientWidth, svg.clientHeight, picture.width, picture.height].join(" ");
  const fit = () => {
    // A flat map leaves the room below it to others.
    svg.style.setProperty("--needed", `${Math.round((picture.height * (svg.clientWidth - 24)) / Math.max(1, picture.width) + 60)}px`);
    const { clientWidth: width, clientHeight: height } = svg;
    view.of = sizes();
    view.scale = Math.min(1.15, (width - 24) / Math.max(1, picture.width + 2 * BENDS), (height - 24) / Math.max(1, picture.height));
    // On a telephone names that can be read, and a picture that is moved.
    if (width < NARROW) view.scale = Math.max(view.scale, Math.min(READABLE, (height - 24) / Math.max(1, picture.height)));
    view.x = Math.max(12, (width - picture.width * view.scale) / 2);
    view.y = (height - picture.height * view.scale) / 2;
    apply();
  };
  const zoom = (/** @type {number} */ factor, /** @type {number} */ x, /** @type {number} */ y) => {
    const scale = Math.min(3, Math.max(0.03, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    apply();
  };
  const move = (/** @type {number} */ x, /** @type {number} */ y) => {
    view.x += x;
    view.y += y;
    apply();
  };
  const control = new AbortController();
  const on = (/** @type {string} */ kind, /** @type {(event: any) => void} */ act, /** @type {any} */ more = {}) =>
    svg.addEventListener(kind, act, { signal: control.signal, ...more });
  on("wheel", (event) => {
    event.preventDefault();
    const { left, top } = svg.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 120 : 500)), event.clientX - left, event.clientY - top);
  }, { passive: false });
  /** @type {{x: number, y: number, isMoved: boolean} | null} */
  let grabbed = null;
  on("pointerdown", (event) => {
    if (event.button === 0) grabbed = { x: event.clientX, y: event.clientY, isMoved: false };
  });
  on("pointermove", (event) => {
    if (!grabbed || (!grabbed.isMoved && Math.hypot(event.clientX - grabbed.x, event.clientY - grabbed.y) < 4)) return;
    if (!grabbed.isMoved) svg.setPointerCapture(event.pointerId);
    grabbed.isMoved = true;
    move(event.clientX - grabbed.x, event.clientY - grabbed.y);
    grabbed.x = event.clientX;
    grabbed.y = event.clientY;
  });
  on("click", (event) => {
    if (grabbed?.isMoved) event.stopPropagation();
    grabbed = null;
  }, { capture: true });
  on("pointercancel", () => {
    grabbed = null;
  });
  on("keydown", (event) => {
    const { clientWidth: width, clientHeight: height } = svg;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
      "+": () => zoom(1.25, width / 2, height / 2), "=": () => zoom(1.25, width / 2, height / 2), "-": () => zoom(0.8, width / 2, height / 2), 0: fit,
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  const watch = new ResizeObserver(() => view.of === sizes() || fit());
  watch.observe(svg);
  if (view.of === sizes()) apply();
  else fit();
  return () => {
    control.abort();
    watch.disconnect();
  };
}
