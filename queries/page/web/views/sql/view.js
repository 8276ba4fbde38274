// @ts-check
/** SQL of one's own, and what there is to ask. */

import { useEffect, useState } from "../../vendor/preact/hooks.mjs";
import { address, change, changed } from "../../core/address.js";
import { useAnswer } from "../../core/asking.js";
import { html } from "../../core/html.js";
import { between } from "../../core/range.js";
import { Nothing, Panel } from "../../parts/panel.js";
import { Table } from "../../parts/table.js";

const MOST_ROWS = 1_000;
const NAMES = `SELECT
  function_name AS name,
  'macro' AS kind,
  list_transform(parameters, lambda name: name || CASE WHEN starts_with(name, 'of_') THEN ' := …' ELSE '' END) AS takes,
  comment AS answers
FROM duckdb_functions()
WHERE NOT internal AND function_type = 'table_macro' AND schema_name = 'main'
UNION ALL
SELECT view_name, 'view', [], comment
FROM duckdb_views()
WHERE NOT internal AND schema_name = 'main'
ORDER BY kind, name`;

export function SqlView() {
  const { q = "" } = address.value.params;
  const [text, setText] = useState(q);
  useEffect(() => setText(q), [q]);
  const answer = useAnswer(q || null, { maxRows: MOST_ROWS });
  const run = () => change({ q: text });
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  };
  const columns = (answer.table?.columns ?? []).map(({ name, type }) => ({
    key: name,
    label: name,
    unit: /INT|DOUBLE|DECIMAL|FLOAT/.test(type) && !/STRUCT|\[/.test(type) ? "plain" : type.startsWith("TIMESTAMP") ? "text" : "text",
    hint: type,
  }));
  return html`<h1>SQL</h1>
    <form class="editor" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); run(); }}>
      <label for="query" class="unseen">Query</label>
      <textarea id="query" rows=${Math.min(24, Math.max(7, text.split("\n").length + 1))} spellcheck=${false} value=${text} onKeyDown=${onKey}
        placeholder="FROM services(${between.value}) LIMIT 10"
        onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
      <p><button type="submit">Run</button> <span class="quiet">Ctrl+Enter. One statement that reads; times are in UTC.</span></p>
    </form>
    ${q && html`<${Panel} id="result" title="Result" answer=${answer}
        note=${answer.table?.truncated ? `These are the first ${MOST_ROWS.toLocaleString("en-US")} rows; there are more.` : null}>
      ${answer.table?.rows.length
        ? html`<${Table} id="result" caption="Result" page=${100} rows=${answer.table.rows} columns=${columns} />`
        : html`<${Nothing} answer=${answer}>No rows.<//>`}
    <//>`}
    <${Names} />`;
}

function Names() {
  const answer = useAnswer(NAMES);
  const example = (/** @type {any} */ row) => {
    const takes = row.takes.filter((/** @type {string} */ one) => !one.endsWith("…") && !/^(divide_by|resolution)$/.test(one));
    const given = takes.join(", ").replace("since, until", between.value);
    return row.kind === "view" ? `FROM ${row.name}\nLIMIT 100` : `FROM ${row.name}(${given})\nLIMIT 100`;
  };
  return html`<${Panel} id="names" title="What there is to ask" answer=${answer}>
    ${answer.table?.rows.length
      ? html`<${Table} id="names" caption="Macros and views" page=${100} rows=${answer.table.rows} columns=${[
          { key: "name", label: "Name", href: (/** @type {any} */ row) => changed({ q: example(row), "result.sort": "" }) },
          { key: "kind", label: "Kind" },
          { key: "answers", label: "Answers", cell: (/** @type {any} */ row) => html`<span class="text">${row.answers ?? ""}</span>` },
        ]} />`
      : html`<${Nothing} answer=${answer} />`}
  <//>`;
}
