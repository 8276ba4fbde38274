// @ts-check
/** A panel as a picture: its chart as it is drawn, or else its numbers as a table. */

import { parts, time } from "../core/format.js";
import { range } from "../core/range.js";
import { colour } from "../core/theme.js";

const PAD = 16;
const LINE = 20;
const FONT = "13px system-ui, sans-serif";
const BOLD = "600 15px system-ui, sans-serif";
const MOST_ROWS = 60;
const WIDEST = 340;
/** Sharp also where it is made larger. */
const SCALE = 2;

/** Let the browser save a panel as PNG. @param {HTMLElement} panel @param {string} name @param {string} title */
export async function savePicture(panel, name, title) {
  const canvas = drawn(panel, title);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (blob) saveFile(blob, `${name}.png`);
}

/** @param {Blob} blob @param {string} name */
export function saveFile(blob, name) {
  const place = URL.createObjectURL(blob);
  const anchor = document.createElement("a");
  anchor.href = place;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(place), 10_000);
}

/** @param {HTMLElement} panel @param {string} title @returns {HTMLCanvasElement} */
function drawn(panel, title) {
  const chart = /** @type {HTMLCanvasElement | null} */ (panel.querySelector(".chart canvas, canvas.cells"));
  const lines = chart ? legendOf(panel) : [];
  const rows = chart ? [] : rowsOf(panel);
  const widths = columnWidths(rows);
  const box = chart?.getBoundingClientRect() ?? { width: widths.reduce((sum, one) => sum + one, 0), height: rows.length * LINE };
  const width = Math.max(box.width, 420) + 2 * PAD;
  const perLine = Math.max(1, Math.floor((width - 2 * PAD) / 180));
  const height = PAD * 2 + 2 * LINE + 8 + box.height + Math.ceil(lines.length / perLine) * LINE;
  const canvas = document.createElement("canvas");
  canvas.width = width * SCALE;
  canvas.height = height * SCALE;
  const to = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  to.scale(SCALE, SCALE);
  to.fillStyle = colour("surface");
  to.fillRect(0, 0, width, height);
  to.textBaseline = "top";
  text(to, title, PAD, PAD, BOLD, "ink");
  text(to, rangeText(), PAD, PAD + LINE, FONT, "quiet");
  const top = PAD + 2 * LINE + 8;
  if (chart) to.drawImage(chart, PAD, top, box.width, box.height);
  const hasHead = panel.querySelector("table") !== null;
  rows.forEach((row, at) => drawRow(to, row, widths, top + at * LINE, hasHead && at === 0));
  lines.forEach(({ label, stroke }, at) => {
    const [x, y] = [PAD + (at % perLine) * 180, top + box.height + 4 + Math.floor(at / perLine) * LINE];
    to.fillStyle = stroke;
    to.fillRect(x, y + 3, 10, 10);
    text(to, fitting(to, label, 158), x + 16, y, FONT, "ink");
  });
  return canvas;
}

function rangeText() {
  const { since, until } = range.peek() ?? { since: 0, until: 0 };
  return `${time(since)} – ${parts(until).clock}`;
}

/** @param {CanvasRenderingContext2D} to @param {string[]} row @param {number[]} widths @param {number} y @param {boolean} isHead */
function drawRow(to, row, widths, y, isHead) {
  let x = PAD;
  row.forEach((cell, at) => {
    text(to, fitting(to, cell, widths[at] - 12), x, y, FONT, isHead ? "quiet" : "ink");
    x += widths[at];
  });
}

/** @param {CanvasRenderingContext2D} to @param {string} words @param {number} x @param {number} y @param {string} font @param {string} ink */
function text(to, words, x, y, font, ink) {
  to.font = font;
  to.fillStyle = colour(ink);
  to.fillText(words, x, y);
}

/** @param {CanvasRenderingContext2D} to @param {string} words @param {number} width */
function fitting(to, words, width) {
  to.font = FONT;
  if (to.measureText(words).width <= width) return words;
  let short = words;
  while (short && to.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}

/** @param {HTMLElement} panel */
function legendOf(panel) {
  return [...panel.querySelectorAll(".u-legend .u-series")].slice(1).filter((row) => !row.classList.contains("u-off")).map((row) => ({
    label: words(row.querySelector(".u-label")),
    stroke: markOf(row.querySelector(".u-marker")),
  }));
}

/** @param {Element | null} marker */
function markOf(marker) {
  const style = marker ? getComputedStyle(marker) : null;
  return style && style.borderTopStyle !== "none" && style.borderTopWidth !== "0px" ? style.borderTopColor : (style?.backgroundColor ?? "gray");
}

/** What a panel says, as rows: of its table, or of what it has in place of one. @param {HTMLElement} panel @returns {string[][]} */
function rowsOf(panel) {
  const table = panel.querySelector("table");
  const found = table
    ? [...table.querySelectorAll("tr")].map((row) => [...row.children].map(words))
    : [...panel.querySelectorAll(".top li, .tiles > div, .card, p")].map((one) => (one.children.length > 1 ? [...one.children].map(words) : [words(one)]));
  return found.length > MOST_ROWS ? [...found.slice(0, MOST_ROWS), [`and ${found.length - MOST_ROWS} more`]] : found;
}

/** @param {string[][]} rows */
function columnWidths(rows) {
  const to = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  to.font = FONT;
  /** @type {number[]} */
  const widths = [];
  for (const row of rows) row.forEach((cell, at) => (widths[at] = Math.min(WIDEST, Math.max(widths[at] ?? 0, to.measureText(cell).width + 14))));
  return widths;
}

/** @param {Element | null} element */
function words(element) {
  return (element?.textContent ?? "").replace(/\s+/g, " ").trim();
}
