// @ts-check
/** Times beside each other: one bar for each line, made of parts that add up. */

import { shown, whole } from "../core/format.js";
import { html } from "../core/html.js";

/**
 * @typedef {{label: string, value: number | null, colour: string, hint?: string}} Part
 * @typedef {{label: string, parts: Part[], note?: string, isPast?: boolean}} Bar
 */

/**
 * `isShared` lets each bar be as long as all: it shows shares, and the number beside it how much.
 * `before` are the same bars of an earlier time: each stands below its own.
 * @param {{caption: string, bars: Bar[], before?: Bar[] | null, unit?: import("../core/format.js").Unit, isShared?: boolean}} props
 */
export function Bars({ caption, bars, before, unit = "us", isShared = false }) {
  const past = new Map((before ?? []).map((bar) => [bar.label, { ...bar, label: `${bar.label}, before`, isPast: true }]));
  const drawn = bars
    .flatMap((/** @type {Bar} */ bar) => [bar, ...(past.has(bar.label) ? [/** @type {Bar} */ (past.get(bar.label))] : [])])
    .filter(({ parts }) => parts.some(({ value }) => value !== null && value !== undefined));
  const longest = Math.max(...drawn.map(total), Number.MIN_VALUE);
  const legend = [...new Map(drawn.flatMap(({ parts }) => parts).map((part) => [part.label, part])).values()];
  return html`<div class="bars" role="img" aria-label="${caption}; a table with its numbers follows">
      ${drawn.map(
        (bar) => html`<div class="bar ${bar.isPast ? "past" : ""}" key=${bar.label}>
          <span class="of">${bar.label}</span>
          <span class="track">
            ${bar.parts.filter(({ value }) => value).map(
              (part) => html`<span key=${part.label} class="part" style=${{ width: `${(100 * Number(part.value)) / (isShared ? total(bar) : longest)}%`, background: `var(--${part.colour})` }}
                title="${part.label}: ${whole(part.value, unit)}${part.hint ? ` – ${part.hint}` : ""}"></span>`,
            )}
            <span class="sum">${whole(total(bar), unit)}</span>
          </span>
        </div>`,
      )}
    </div>
    <ul class="legend">${legend.map((part) => html`<li key=${part.label} title=${part.hint}><span class="swatch" style=${{ background: `var(--${part.colour})` }}></span>${part.label}</li>`)}</ul>
    <div class="unseen"><table class="numbers">
      <caption>${caption}</caption>
      <thead><tr><th scope="col">of</th><th scope="col">part</th><th scope="col">value</th></tr></thead>
      <tbody>${drawn.flatMap((bar) => bar.parts.map((part) => html`<tr><th scope="row">${bar.label}</th><td>${part.label}</td><td>${shown(part.value, unit)}</td></tr>`))}</tbody>
    </table></div>`;
}

/** @param {Bar} bar */
function total({ parts }) {
  return parts.reduce((sum, { value }) => sum + (value ?? 0), 0);
}
