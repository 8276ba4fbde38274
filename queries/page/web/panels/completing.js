// @ts-check
/** A field for an expression: names of metrics and functions are completed while they are typed. */

import { useRef, useState } from "../vendor/preact/hooks.mjs";
import { html } from "../core/html.js";
import { FUNCTIONS, useMetrics } from "./metrics.js";

const MOST_SHOWN = 12;
let fields = 0;

/** @param {{label: string, value: string, kind: string, onValue: (text: string) => void}} props */
export function Completing({ label, value, kind, onValue }) {
  const metrics = useMetrics();
  const place = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const [id] = useState(() => `complete-${(fields += 1)}`);
  const [word, setWord] = useState("");
  const [at, setAt] = useState(0);
  const choices = word ? found(word, metrics, kind) : [];
  const chosen = choices[Math.min(at, choices.length - 1)];
  const look = () => {
    const field = /** @type {HTMLTextAreaElement} */ (place.current);
    setWord(/[A-Za-z_][A-Za-z0-9_]*$/.exec(field.value.slice(0, field.selectionStart))?.[0] ?? "");
    setAt(0);
  };
  const take = (/** @type {string} */ name) => {
    const field = /** @type {HTMLTextAreaElement} */ (place.current);
    const end = field.selectionStart;
    const start = end - word.length;
    const after = field.value.slice(end).replace(/^[A-Za-z0-9_]*/, "");
    const text = `${field.value.slice(0, start)}${name}${after}`;
    field.value = text;
    const caret = start + name.length;
    field.setSelectionRange(caret, caret);
    field.focus();
    setWord("");
    onValue(text);
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !chosen) {
      event.preventDefault();
      place.current?.form?.requestSubmit();
      return;
    }
    if (!chosen) return;
    const step = /** @type {Record<string, number>} */ ({ ArrowDown: 1, ArrowUp: -1 })[event.key];
    if (step) setAt((Math.min(at, choices.length - 1) + step + choices.length) % choices.length);
    else if (event.key === "Enter" || event.key === "Tab") take(chosen.name);
    else if (event.key === "Escape") setWord("");
    else return;
    event.preventDefault();
  };
  return html`<label class="expression">${label}
    <textarea ref=${place} rows=${Math.min(6, Math.max(1, Math.ceil(value.length / 60)))} spellcheck=${false} value=${value} role="combobox" aria-expanded=${choices.length > 0} aria-controls=${id} aria-autocomplete="list"
      aria-activedescendant=${chosen ? `${id}-${choices.indexOf(chosen)}` : undefined}
      onInput=${(/** @type {any} */ event) => { onValue(event.target.value); look(); }} onKeyDown=${onKey} onBlur=${() => setTimeout(() => setWord(""), 150)}></textarea>
    <ul id=${id} class="choices" role="listbox" hidden=${!choices.length}>${choices.map((one, of) => html`<li key=${one.name} id="${id}-${of}" role="option" aria-selected=${one === chosen}
      onMouseDown=${(/** @type {Event} */ event) => { event.preventDefault(); take(one.name); }}>${one.name} <span class="quiet">${one.note}</span></li>`)}</ul>
  </label>`;
}

/**
 * Names that have a word: those that begin with it first, and of metrics those of the page's entity.
 * @param {string} word @param {import("./metrics.js").Metric[]} metrics @param {string} kind
 */
function found(word, metrics, kind) {
  const wanted = word.toLowerCase();
  const own = `K8S${kind}`;
  const all = [
    ...FUNCTIONS.map((name) => ({ name, note: "function", rank: name.startsWith(wanted) ? 0 : 9 })),
    ...metrics.map(({ name, scope, unit }) => ({ name, note: unit ?? "", rank: (scope === own ? 0 : 4) + (name.toLowerCase().startsWith(wanted) ? 0 : 2) })),
  ];
  const fits = all.filter(({ name, rank }) => rank !== 9 && name.toLowerCase().includes(wanted) && name.toLowerCase() !== wanted);
  return fits.sort((a, b) => a.rank - b.rank || (a.name < b.name ? -1 : 1)).slice(0, MOST_SHOWN);
}
