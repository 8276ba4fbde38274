// @ts-check
/** Changes a panel: its expressions, kind, units, size and place; or removes it. What is typed is tried at once. */

import { useRef, useState } from "../vendor/preact/hooks.mjs";
import { asError } from "../core/asking.js";
import { html } from "../core/html.js";
import { Fault } from "../parts/panel.js";
import { checked } from "./asking.js";
import { Completing } from "./completing.js";
import { graphqlEntity } from "./entity.js";
import { CHOICES, decoded, kindOf, LISTS } from "./model.js";
import { savePage } from "./pages.js";

/**
 * @typedef {import("./model.js").Widget} Widget
 * @typedef {{expression: string, label: string, unit: string, rest: Record<string, any>}} Line
 * @typedef {{title: string, is: string, lines: Line[], w: number, h: number}} Form
 * @typedef {{widget: Widget, page: string, path: number[], kind: string, params: Record<string, string>,
 *   form: Form, onForm: (form: Form) => void, onDraft: (draft: Widget) => void, onDone: () => void}} Props
 */

const WIDTHS = /** @type {Record<string, number>} */ ({ "a quarter": 6, "a third": 8, "a half": 12, "two thirds": 16, whole: 24 });

/** @param {Props} props */
export function Editor({ widget, page, path, kind, params, form, onForm, onDraft, onDone }) {
  // What is typed while a letter is drawn is not lost.
  const newest = useRef(form);
  newest.current = form;
  const [error, setError] = useState(/** @type {import("../core/asking.js").AskError | null} */ (null));
  const [isSaving, setSaving] = useState(false);
  const [isRemoving, setRemoving] = useState(false);
  const set = (/** @type {Partial<Form>} */ more) => {
    newest.current = { ...newest.current, ...more };
    onForm(newest.current);
  };
  const setLine = (/** @type {number} */ at, /** @type {Partial<Line>} */ more) => set({ lines: newest.current.lines.map((one, of) => (of === at ? { ...one, ...more } : one)) });
  const attempt = () => onDraft(widgetOf(widget, newest.current));
  const remove = (/** @type {number} */ at) => () => {
    set({ lines: newest.current.lines.filter((_, of) => of !== at) });
    attempt();
  };
  const run = async (/** @type {() => Promise<void>} */ save) => {
    setSaving(true);
    setError(null);
    try {
      await save();
      onDone();
    } catch (one) {
      setError(asError(one));
      setSaving(false);
    }
  };
  const save = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    void run(async () => {
      const next = widgetOf(widget, newest.current);
      // Lists are about other entities than the page; what is no expression is found all the same.
      await checked(next.expressions, graphqlEntity(kind, params), LISTS.includes(form.is));
      await savePage(page, path, (siblings, at) => { siblings[at] = next; });
    });
  };
  const move = (/** @type {number} */ by) => () => run(() => savePage(page, path, (siblings, at) => moved(siblings, at, by)));
  const takeAway = () => (isRemoving ? run(() => savePage(page, path, (siblings, at) => { siblings.splice(at, 1); })) : setRemoving(true));
  const kinds = LISTS.includes(form.is) ? LISTS : CHOICES;
  return html`<form class="sql editing" aria-label="Change this panel" onSubmit=${save} onChange=${attempt}>
    <div class="fields">
      <label class="wide">Title <input name="title" value=${form.title} onInput=${(/** @type {any} */ e) => set({ title: e.target.value })} /></label>
      <label>Kind <select name="kind" value=${form.is} onChange=${(/** @type {any} */ e) => set({ is: e.target.value })}>
        ${kinds.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
      <label>Width <select name="width" value=${String(form.w)} onChange=${(/** @type {any} */ e) => set({ w: Number(e.target.value) })}>
        ${widthsFor(form.w).map(([name, w]) => html`<option key=${w} value=${String(w)}>${name}</option>`)}</select></label>
      <label>Height <input name="height" type="number" min="6" max="80" value=${form.h} onInput=${(/** @type {any} */ e) => set({ h: Number(e.target.value) || form.h })} /></label>
    </div>
    ${form.lines.map((line, at) => html`<fieldset key=${at}>
      <legend class="unseen">Expression ${at + 1}</legend>
      <${Completing} label="Expression ${at + 1}" value=${line.expression} kind=${kind} onValue=${(/** @type {string} */ text) => setLine(at, { expression: text })} />
      <label>Label <input value=${line.label} onInput=${(/** @type {any} */ e) => setLine(at, { label: e.target.value })} /></label>
      <label>Unit <input class="short" value=${line.unit} onInput=${(/** @type {any} */ e) => setLine(at, { unit: e.target.value })} /></label>
      ${form.lines.length > 1 && html`<button type="button" onClick=${remove(at)} aria-label="Take expression ${at + 1} away">×</button>`}
    </fieldset>`)}
    <p class="buttons">
      <button type="button" onClick=${() => set({ lines: [...form.lines, { expression: "", label: "", unit: "", rest: {} }] })}>One more expression</button>
      <button type="button" onClick=${move(-1)} disabled=${isSaving} title="Change places with the panel before it">Earlier</button>
      <button type="button" onClick=${move(1)} disabled=${isSaving} title="Change places with the panel after it">Later</button>
      <button type="button" onClick=${takeAway} disabled=${isSaving} title="Take this panel off the page">${isRemoving ? "Remove it, really" : "Remove"}</button>
      <span class="end"><button type="button" class="plain" onClick=${onDone}>Cancel</button>
      <button type="submit" disabled=${isSaving}>Save</button></span>
    </p>
    ${error && html`<${Fault} error=${error} />`}
  </form>`;
}

/** @param {Widget} widget @returns {Form} */
export function formOf(widget) {
  const expressions = widget.expressions?.length ? widget.expressions : [""];
  const lines = expressions.map((/** @type {string} */ expression, /** @type {number} */ at) => {
    const { label = "", unit = "", ...rest } = widget.metricConfig?.[at] ?? {};
    return { expression, label: decoded(label), unit: decoded(unit), rest };
  });
  return { title: decoded(widget.widget?.title ?? widget.widget?.name), is: kindOf(widget), lines, w: widget.w ?? 24, h: widget.h ?? 13 };
}

/** What is not changed here stays as the file has it. @param {Widget} widget @param {Form} form @returns {Widget} */
function widgetOf(widget, form) {
  const lines = form.lines.filter(({ expression }) => expression.trim());
  return {
    ...widget,
    w: form.w,
    h: form.h,
    expressions: lines.map(({ expression }) => expression.trim()),
    metricConfig: lines.map(({ label, unit, rest }) => ({ ...rest, ...(label ? { label } : {}), ...(unit ? { unit } : {}) })),
    graph: { ...widget.graph, type: form.is },
    widget: { ...widget.widget, title: form.title },
  };
}

/** @param {number} w @returns {[string, number][]} */
function widthsFor(w) {
  const known = Object.entries(WIDTHS);
  return known.some(([, one]) => one === w) ? known : [...known, [`${w} of 24`, w]];
}

/**
 * Let a widget change its place in the file with the one that is shown before or after it.
 * @param {Widget[]} siblings @param {number} at @param {number} by
 */
function moved(siblings, at, by) {
  const order = siblings.map((_, of) => of).sort((a, b) => (siblings[a].y ?? 0) - (siblings[b].y ?? 0) || (siblings[a].x ?? 0) - (siblings[b].x ?? 0));
  const other = order[order.indexOf(at) + by];
  if (other === undefined) return;
  const [mine, its] = [siblings[at], siblings[other]];
  const place = (/** @type {Widget} */ { x, y }) => ({ x, y });
  [siblings[at], siblings[other]] = [{ ...mine, ...place(its) }, { ...its, ...place(mine) }];
}
