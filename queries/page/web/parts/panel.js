// @ts-check
/** A panel: what is shown, its SQL and MQE, its rows as CSV, a picture of it, its link. */

import { useEffect, useRef, useState } from "../vendor/preact/hooks.mjs";
import { address, changed, link } from "../core/address.js";
import { asError } from "../core/asking.js";
import { html } from "../core/html.js";
import { saveFile, savePicture } from "./picture.js";

/**
 * @typedef {import("../core/asking.js").Answer} Answer
 * @typedef {object} PanelProps
 * @property {string} id
 * @property {string} title
 * @property {string} [unit]
 * @property {Answer} [answer]
 * @property {Answer | null} [earlier] of an earlier time, beside it
 * @property {any} [note]
 * @property {string} [class]
 * @property {string} [hint]
 * @property {Record<string, string>} [style]
 * @property {string[]} [mqe] the expressions that make it
 * @property {(() => Promise<string[]>) | null} [statements] what asks for its SQL, if the answer has none
 * @property {any} [actions] more of them
 * @property {any} [children]
 * @param {PanelProps} props
 */
export function Panel({ id, title, unit = "", answer, earlier, note, class: kind = "", hint, style, mqe, statements, actions, children }) {
  const [open, setOpen] = useState("");
  const flip = (/** @type {string} */ one) => () => setOpen(open === one ? "" : one);
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const isNamed = address.value.params.panel === id;
  useEffect(() => {
    if (isNamed) place.current?.scrollIntoView({ block: "start" });
  }, [isNamed]);
  const state = answer?.isPending ? "pending" : answer?.error ? "failed" : "done";
  return html`<section ref=${place} style=${style} class="panel ${kind} ${isNamed ? "named" : ""}" id=${id} data-state=${answer ? state : undefined}
      aria-labelledby="${id}-title" aria-busy=${answer?.isPending ? "true" : undefined}>
    <header>
      <h2 id="${id}-title" title=${hint}>${title}${unit && html` <span class="unit quiet">${unit}</span>`}</h2>
      ${answer && html`<div class="actions">
        <button type="button" aria-expanded=${open === "sql"} onClick=${flip("sql")} title="The SQL that makes this">SQL</button>
        ${mqe && html`<button type="button" aria-expanded=${open === "mqe"} onClick=${flip("mqe")} title="The expressions that make this">MQE</button>`}
        <button type="button" onClick=${() => save(id, answer)} disabled=${!answer.table} title="These rows as a file">CSV</button>
        <button type="button" onClick=${() => savePicture(/** @type {HTMLElement} */ (place.current), id, unit ? `${title} (${unit})` : title)} disabled=${!answer.table} title="This as a picture">PNG</button>
        <a href=${changed({ panel: id })} title="The address of this panel">Link</a>
        ${actions}
      </div>`}
    </header>
    ${note && html`<p class="note">${note}</p>`}
    ${open === "sql" && answer && (statements ? html`<${Statements} of=${statements} key=${answer.sql} />` : html`<${Code} text=${answer.sql} isSql=${true} />`)}
    ${open === "sql" && earlier?.sql && html`<p class="note">And of the earlier time:</p><${Code} text=${earlier.sql} isSql=${true} />`}
    ${open === "mqe" && (mqe ?? []).map((text) => html`<${Code} text=${text} key=${text} />`)}
    ${earlier?.error && html`<${Fault} error=${earlier.error} />`}
    ${answer?.error ? html`<${Fault} error=${answer.error} />` : children}
  </section>`;
}

/** @param {{of: () => Promise<string[]>}} props */
function Statements({ of }) {
  const [found, setFound] = useState(/** @type {string[] | null} */ (null));
  const [error, setError] = useState(/** @type {import("../core/asking.js").AskError | null} */ (null));
  useEffect(() => {
    of().then(setFound, (one) => setError(asError(one)));
  }, []);
  if (error) return html`<${Fault} error=${error} />`;
  if (!found) return html`<p class="quiet">…</p>`;
  if (!found.length) return html`<p class="quiet">Nothing is read for this.</p>`;
  return found.map((sql) => html`<${Code} text=${sql} isSql=${true} key=${sql} />`);
}

/** @param {{text: string, isSql?: boolean}} props */
function Code({ text, isSql = false }) {
  const [word, setWord] = useState("Copy");
  const copy = () =>
    navigator.clipboard?.writeText(text).then(
      () => setWord("Copied"),
      () => setWord("Select it, and copy"),
    );
  return html`<div class="sql">
    <pre tabindex="0">${text}</pre>
    ${navigator.clipboard && html`<button type="button" onClick=${copy}>${word}</button>`}
    ${isSql && html`${" "}<a href=${link("sql", { q: text })}>Open in SQL</a>`}
  </div>`;
}

/** @param {{error: import("../core/asking.js").AskError}} props */
export function Fault({ error }) {
  return html`<p class="fault" role="alert"><strong>${error.problem}</strong>${error.remedy && html`<br />${error.remedy}`}</p>`;
}

/** What stands where there are no rows. @param {{answer: Answer, children?: any}} props */
export function Nothing({ answer, children }) {
  if (answer.isPending && !answer.table) return html`<p class="quiet">…</p>`;
  return html`<p class="quiet">${children ?? "Nothing in this range."}</p>`;
}

/** @param {string} name @param {Answer} answer */
function save(name, answer) {
  if (!answer.table) return;
  const { columns, rows } = answer.table;
  const lines = [columns.map(({ name: one }) => cell(one)), ...rows.map((row) => columns.map((one) => cell(row[one.name])))];
  const text = lines.map((line) => `${line.join(",")}\r\n`).join("");
  saveFile(new Blob([text], { type: "text/csv" }), `${name}.csv`);
}

/** @param {any} value */
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
