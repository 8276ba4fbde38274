// @ts-check
/** Nodes and edges as a picture that stands still: every box and line leads where its row does. */

import { useMemo } from "../../vendor/preact/hooks.mjs";
import { html } from "../../core/html.js";
import { BOX, layout } from "../../graph/layout.js";
import { pathOf, wayKey } from "../../graph/routing.js";

/**
 * @typedef {{id: string, group: string, name: string, numbers: string[], isBad: boolean, href: string | null}} Node
 * @typedef {{source: string, dest: string, name: string, numbers: string[], href: string | null}} Edge
 */

const LETTERS = { name: 21, numbers: 26 };
/** Not smaller than this share of its size: what does not fit is moved to. */
const LEGIBLE = 0.7;
/** As far as edges may bend beyond the boxes. */
const MARGIN = { x: 42, y: 4 };

/** @param {{id: string, title: string, nodes: Node[], edges: Edge[]}} props */
export function Graph({ id, title, nodes, edges }) {
  const shape = [...nodes.map((node) => node.id), ...edges.map(({ source, dest }) => wayKey(source, dest))].join("\n");
  const picture = useMemo(() => layout(nodes, edges), [shape]);
  const [width, height] = [picture.width + 2 * MARGIN.x, picture.height + 2 * MARGIN.y];
  return html`<div class="graph"><svg viewBox="${-MARGIN.x} ${-MARGIN.y} ${width} ${height}" style=${{ width: `${width}px`, minWidth: `${Math.round(LEGIBLE * width)}px` }} role="group" aria-label="${title}, as a picture; lists with the same follow">
      <defs><marker id="${id}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5 L8 4 L0 7.5 z" class="head ok" /></marker></defs>
      ${picture.groups.map((group) => html`<g class="frame" key=${group.id}><rect x=${group.x} y=${group.y} width=${group.width} height=${group.height} rx="10" />
        <text x=${group.x + 14} y=${group.y + 21}>${cut(group.id, Math.floor((group.width - 28) / 7.2))}</text></g>`)}
      ${edges.map((edge) => line(edge, picture, id))}
      ${nodes.map((node) => box(node, picture))}
    </svg></div>`;
}

/** @param {Edge} edge @param {import("../../graph/layout.js").Picture} picture @param {string} id */
function line(edge, picture, id) {
  const route = picture.routes.get(wayKey(edge.source, edge.dest));
  if (!route) return null;
  const path = pathOf(route);
  return linked(edge.href, `edge ok`, html`<title>${[edge.name, ...edge.numbers].join("\n")}</title><path class="hit" d=${path} /><path class="line" d=${path} stroke-width="1.6" marker-end="url(#${id}-head)" />`);
}

/** @param {Node} node @param {import("../../graph/layout.js").Picture} picture */
function box(node, picture) {
  const { x, y } = /** @type {{x: number, y: number}} */ (picture.boxes.get(node.id));
  const content = html`<title>${[node.name, ...node.numbers].join("\n")}</title>
    <rect class="body" width=${BOX.width} height=${BOX.height} rx="6" /><rect class="tone" width="4" height=${BOX.height} rx="2" />
    <text x="12" y=${node.numbers.length ? 18 : 26} class="title">${cut(withoutGroup(node), LETTERS.name)}</text>
    <text x="12" y="33" class="numbers">${fitting(node.numbers)}</text>`;
  return html`<g key=${node.id} transform="translate(${x} ${y})">${linked(node.href, `box ${node.isBad ? "bad" : ""}`, content)}</g>`;
}

/** @param {string | null} href @param {string} kind @param {any} content */
function linked(href, kind, content) {
  return href ? html`<a class=${kind} href=${href}>${content}</a>` : html`<g class=${kind}>${content}</g>`;
}

/** What a frame says its boxes need not say: a pod begins with the name of its service. @param {Node} node */
function withoutGroup({ name, group }) {
  const known = `${group.split(".")[0]}-`;
  return group && name.startsWith(known) ? name.slice(known.length) : name;
}

/** As many numbers as a box has room for. @param {string[]} numbers */
function fitting(numbers) {
  let text = numbers[0] ?? "";
  for (const one of numbers.slice(1)) {
    if (text.length + one.length + 2 > LETTERS.numbers) break;
    text = `${text}, ${one}`;
  }
  return cut(text, LETTERS.numbers);
}

/** @param {string} text @param {number} most */
function cut(text, most) {
  return text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text;
}
