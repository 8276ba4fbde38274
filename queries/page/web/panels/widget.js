// @ts-check
/** A panel of a file: what it shows by its kind; and where it cannot, why. */

import { useState } from "../vendor/preact/hooks.mjs";
import { address, change } from "../core/address.js";
import { html } from "../core/html.js";
import { seriesSql } from "../parts/http.js";
import { Nothing, Panel } from "../parts/panel.js";
import { explained, useExpressions } from "./asking.js";
import { Editor, formOf } from "./editor.js";
import { graphqlEntity, inSql } from "./entity.js";
import { cellRows, HeatMap, useHeatMap } from "./kinds/heatmap.js";
import { Card, Entities, firstError, Labelled, singleRows, TopList, topRows, useEntities } from "./kinds/lists.js";
import { notStored, useMetrics } from "./metrics.js";
import { CHARTS, decoded, kindOf, LISTS, namedSeries, tipOf, titleOf, unitOf } from "./model.js";
import { canEdit } from "./pages.js";
import { Chart, rowsOf } from "./kinds/series.js";
import { TopologyPanel } from "./kinds/topology.js";
import { commonUnit, isScaled } from "./units.js";

/**
 * @typedef {import("./model.js").Widget} Widget
 * @typedef {{widget: Widget, path: number[], kind: string, params: Record<string, string>, page: string}} WidgetProps
 * @typedef {WidgetProps & {id: string, title: string, frame: any}} Shown
 */

/** One unit of height of a file, in pixels. */
const UNIT_PX = 14;

/** @param {WidgetProps} props */
export function WidgetPanel(props) {
  const { widget, path, kind, page } = props;
  const [draft, setDraft] = useState(/** @type {Widget | null} */ (null));
  // Here, as another kind of panel is another component.
  const [form, setForm] = useState(/** @type {import("./editor.js").Form | null} */ (null));
  const close = () => { setDraft(null); setForm(null); };
  const id = `w-${path.join("-")}`;
  const isEdited = canEdit.value && address.value.params.edit === id && widget.type === "Widget";
  const shown = (isEdited && draft) || widget;
  const title = titleOf(shown);
  const note = isEdited && html`<${Editor} widget=${widget} page=${page} path=${path} kind=${kind} params=${props.params}
    form=${form ?? formOf(widget)} onForm=${setForm} onDraft=${setDraft} onDone=${() => { close(); change({ edit: "" }, { replaces: true }); }} />`;
  const edit = canEdit.value && widget.type === "Widget" && html`<button type="button" aria-expanded=${isEdited} title="Change this panel"
    onClick=${() => { close(); change({ edit: isEdited ? "" : id }, { replaces: true }); }}>Edit</button>`;
  const frame = { id, title, hint: tipOf(shown) || undefined, editor: note, actions: edit, style: widths(shown) };
  const component = componentOf(kindOf(shown));
  return html`<${component} ...${props} widget=${shown} id=${id} title=${title} frame=${frame} key=${component.name} />`;
}

/** How many of 24 columns it takes; charts are no narrower than a half where a page is narrow. @param {Widget} widget */
function widths(widget) {
  const w = Math.min(24, Math.max(1, Math.round(widget.w ?? 24)));
  return { "--w": String(w), "--m": String(CHARTS.includes(kindOf(widget)) && w < 8 ? 12 : w) };
}

/** @param {string} shown what a widget is */
function componentOf(shown) {
  if (CHARTS.includes(shown) || ["Card", "Table", "TopList"].includes(shown)) return Expressions;
  if (LISTS.includes(shown)) return List;
  if (shown === "HeatMap") return Heat;
  if (shown === "Topology") return TopologyPanel;
  if (shown === "Text") return Words;
  return NotShown;
}

/** @param {Shown} props */
function Expressions({ widget, kind, params, id, title, frame }) {
  const entity = graphqlEntity(kind, params);
  const expressions = /** @type {string[]} */ (widget.expressions ?? []);
  const asked = expressions.map((expression) => ({ expression, entity }));
  const answer = useExpressions(asked);
  const { results } = answer;
  const failed = results.filter(({ error }) => error);
  const error = answer.error ?? (failed.length === results.length ? firstError(results) : null);
  const series = namedSeries(widget, results);
  const is = kindOf(widget);
  const hasValues = series.some(({ values }) => values.some((value) => value !== null));
  const table = !results.length ? null : is === "TopList" ? topRows(widget, results, 0) : CHARTS.includes(is) ? rowsOf(series) : singleRows(series);
  const told = { sql: JSON.stringify(asked), table, error, isPending: answer.isPending };
  const note = html`${frame.editor}${!error && failed.map((one) => html`<p class="note" key=${one.error}>${one.error}</p>`)}`;
  return html`<${Panel} ...${frame} class=${is === "Card" ? "small" : ""} note=${note} answer=${told} mqe=${expressions} statements=${() => explained(asked)}
      unit=${CHARTS.includes(is) && !isScaled(commonUnit(series)) ? commonUnit(series) : ""}>
    ${hasValues ? body(widget, is, id, title, series, results) : empty(expressions, told)}
  <//>`;
}

/** @param {string[]} expressions @param {import("../core/asking.js").Answer} answer */
function empty(expressions, answer) {
  return answer.isPending ? html`<${Nothing} answer=${answer} />` : html`<${WhyEmpty} expressions=${expressions} answer=${answer} />`;
}

/** @param {Widget} widget @param {string} is @param {string} id @param {string} title @param {import("./model.js").Named[]} series @param {import("./asking.js").Result[]} results */
function body(widget, is, id, title, series, results) {
  if (is === "Card") return html`<${Card} widget=${widget} series=${series} />`;
  if (is === "Table") return html`<${Labelled} id=${id} title=${title} widget=${widget} series=${series} />`;
  if (is === "TopList") return html`<${TopList} id=${id} title=${title} widget=${widget} results=${results} />`;
  const filled = series.filter(({ values }) => values.some((value) => value !== null));
  return html`<${Chart} title=${title} kind=${is} series=${filled} height=${(widget.h ?? 13) * UNIT_PX + 8} />`;
}

/** @param {{expressions: string[], answer: import("../core/asking.js").Answer}} props */
function WhyEmpty({ expressions, answer }) {
  const metrics = useMetrics();
  if (!expressions.length) return html`<p class="quiet">This panel has no expression.</p>`;
  const missing = metrics.length ? [...new Set(expressions.flatMap((one) => notStored(one, metrics)))] : [];
  if (!missing.length) return html`<${Nothing} answer=${answer} />`;
  return html`<p class="quiet">Not from Rover's logs: ${missing.slice(0, 3).join(", ")}${missing.length > 3 ? `, and ${missing.length - 3} more` : ""}.
    Such metrics come from kube-state-metrics, cAdvisor or profiling, and framewalk has none of them.</p>`;
}

/** @param {Shown} props */
function List({ widget, params, id, title, frame }) {
  const list = kindOf(widget);
  const found = useEntities(widget, list, params);
  const told = { sql: JSON.stringify(found.asked), table: found.isPending && !found.rows.length ? null : found.table, error: found.error, isPending: found.isPending };
  const statements = async () => [found.names.sql, ...(await explained(found.asked))];
  return html`<${Panel} ...${frame} note=${frame.editor} answer=${told} mqe=${widget.expressions ?? []} statements=${statements}>
    ${found.rows.length ? html`<${Entities} id=${id} title=${title} widget=${widget} list=${list} rows=${found.rows} isCut=${found.isCut} />` : html`<${Nothing} answer=${told} />`}
  <//>`;
}

/** @param {Shown} props */
function Heat({ widget, kind, params, title, frame }) {
  const metric = /** @type {string} */ ((widget.expressions ?? [""])[0] ?? "").trim();
  const answer = useHeatMap(metric, graphqlEntity(kind, params));
  const told = { sql: metric, table: answer.cells && cellRows(answer.cells), error: answer.error, isPending: answer.isPending };
  const hasValues = !!told.table?.rows.length;
  return html`<${Panel} ...${frame} note=${frame.editor} answer=${told} mqe=${widget.expressions ?? []} unit=${unitOf(widget, 0)} statements=${async () => [seriesSql({ ...inSql(kind, params), prefix: "", columns: [metric] })]}>
    ${hasValues ? html`<${HeatMap} title=${title} cells=${answer.cells} height=${(widget.h ?? 13) * UNIT_PX + 8} />` : empty(widget.expressions ?? [], told)}
  <//>`;
}

/** @param {Shown} props */
function Words({ widget, frame }) {
  const { content, url } = widget.graph ?? {};
  const isLink = /^https?:\/\//.test(url ?? "");
  const text = decoded(content);
  return html`<section class="words" id=${frame.id} style=${frame.style}><p>${isLink ? html`<a href=${url} rel="noreferrer">${text}</a>` : text}</p></section>`;
}

/** @param {Shown} props */
function NotShown({ widget, frame }) {
  const is = kindOf(widget) || "This kind of panel";
  return html`<${Panel} ...${frame} title=${decoded(widget.widget?.title) || is}>
    <p class="quiet">${is} is about what framewalk does not keep: it has the metrics of Rover's access logs, and no traces, logs, events or profiles.</p>
  <//>`;
}
