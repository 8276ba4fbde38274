// @ts-check
/** The head: where one is, which time is shown, how fresh it is. */

import { useState } from "../vendor/preact/hooks.mjs";
import { address, change, changed, link } from "../core/address.js";
import { askAgain, isReached } from "../core/asking.js";
import { COMPARED, earlierRange, VS_CHOICES } from "../core/comparing.js";
import { isLocal, length, parts, rangeShown } from "../core/format.js";
import { html } from "../core/html.js";
import { isFresh, isLive, last, LAST_CHOICES, now, range, stored, timeOf } from "../core/range.js";
import { isBeingRead } from "../core/reading.js";
import { flipTheme, isDark } from "../core/theme.js";

const VIEWS = { start: "Start", map: "Map", dashboards: "Dashboards", unknown: "Unknown peers", sql: "SQL" };

export function Head() {
  const { view } = address.value;
  return html`<header class="head">
    <a class="name" href=${link("start")}>framewalk</a>
    <nav aria-label="Views">
      ${Object.entries(VIEWS).map(
        ([name, title]) =>
          html`<a key=${name} href=${link(name)} aria-current=${view === name ? "page" : undefined}>${title}</a>`,
      )}
    </nav>
    <div class="time">
      <${Freshness} />
      ${range.value && html`<${RangeChoice} />`}
      ${range.value && COMPARED.has(view) && html`<${Comparison} />`}
      <button type="button" class="plain" onClick=${() => change({ tz: isLocal() ? "" : "local" })}
        title="Times are in ${isLocal() ? "the zone of this browser" : "UTC"}; show the other">
        ${isLocal() ? "Local" : "UTC"}
      </button>
      <button type="button" class="plain" onClick=${flipTheme} title="Change between light and dark">
        ${isDark.value ? "Dark" : "Light"}
      </button>
    </div>
  </header>`;
}

function Freshness() {
  if (!isReached.value) return html`<span class="fresh bad" role="status">The server does not answer</span>`;
  if (!stored.value) return null;
  const age = length(now.value - stored.value.until);
  if (!isFresh.value) {
    return html`<span class="fresh" role="status" title="The newest minute that is stored">ended ${age} ago</span>`;
  }
  if (!isLive.value) {
    const { params } = address.value;
    return html`<span class="fresh" role="status">not followed
      ${!params.to && html` <a href=${changed({ live: "" })}>follow</a>`}</span>`;
  }
  const word = isBeingRead.value ? "waits while you read" : "live";
  return html`<span class="fresh ${isBeingRead.value ? "" : "good"}" role="status" title="The newest minute may still grow">
    ${word} <a href=${changed({ live: "off" })} title="Stay with this range">stop</a></span>`;
}

function RangeChoice() {
  const [isOpen, setOpen] = useState(false);
  return html`<div class="range" role="group" aria-label="Time range">
    ${LAST_CHOICES.map(
      (one) => html`<a key=${one} href=${changed({ last: one, from: "", to: "" })}
        aria-current=${last.value === one ? "true" : undefined} title="The last ${one} of what is stored">${one}</a>`,
    )}
    <button type="button" aria-expanded=${isOpen} aria-current=${last.value === "" ? "true" : undefined}
      onClick=${() => setOpen(!isOpen)}>${rangeShown(/** @type {any} */ (range.value))}</button>
    ${isOpen && html`<${Custom} onDone=${() => setOpen(false)} />`}
  </div>`;
}

/** What the range is compared with; any length or time may stand in the address. */
function Comparison() {
  const { vs = "" } = address.value.params;
  const choices = vs in VS_CHOICES ? VS_CHOICES : { ...VS_CHOICES, [vs]: /^\d+[mhd]/.test(vs) ? `${vs} earlier` : `from ${vs.replace("T", " ")}` };
  const time = earlierRange.value;
  return html`<label class="compare">vs <select value=${vs} aria-label="Compare with" title=${time ? `Compared with ${rangeShown(time)}` : "Compare with an earlier time of the same length"}
      onChange=${(/** @type {any} */ event) => change({ vs: event.target.value })}>
      ${Object.entries(choices).map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}
    </select></label>`;
}

/** @param {{onDone: () => void}} props */
function Custom({ onDone }) {
  const { since, until } = /** @type {{since: number, until: number}} */ (range.value);
  const whole = /** @type {{since: number, until: number}} */ (stored.value);
  const begin = timeOf(address.value.params.vs);
  const versus = begin === undefined ? "" : field(begin);
  /** @param {SubmitEvent} event */
  const choose = (event) => {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const from = utc(String(form.get("from")));
    const to = utc(String(form.get("to")));
    if (from && to && from < to) {
      const vs = utc(String(form.get("vs")));
      change({ from, to, last: "", ...(vs && vs < from ? { vs } : {}) });
      onDone();
    }
  };
  return html`<form class="custom" onSubmit=${choose} onKeyDown=${(/** @type {KeyboardEvent} */ e) => e.key === "Escape" && onDone()}>
    <label>From <input type="datetime-local" name="from" required value=${field(since)} /></label>
    <label>To <input type="datetime-local" name="to" required value=${field(until)} /></label>
    <label>vs <input type="datetime-local" name="vs" title="When an earlier time begins that this one is compared with; it may be empty" value=${versus} /></label>
    <p class="quiet">Times are in ${isLocal() ? "the zone of this browser" : "UTC"}. There is
      ${" "}${rangeShown(whole)}.</p>
    <button type="submit">Show</button>
    <a href=${changed({ from: field(whole.since, true), to: field(whole.until, true), last: "" })} onClick=${onDone}>All there is</a>
    <button type="button" class="plain" onClick=${() => { askAgain(); onDone(); }}>Ask again</button>
  </form>`;
}

/** @param {number} ms @param {boolean} [inUtc] */
function field(ms, inUtc = false) {
  if (inUtc) return new Date(ms).toISOString().slice(0, 16);
  const { day, clock } = parts(ms);
  return `${day}T${clock}`;
}

/** @param {string} text of a field @returns {string} in UTC, "" if it is no time */
function utc(text) {
  const ms = isLocal() ? new Date(text).getTime() : (timeOf(text) ?? Number.NaN);
  return Number.isNaN(ms) ? "" : new Date(ms).toISOString().slice(0, 16);
}
