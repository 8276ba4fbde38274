// @ts-check
/** Which time is shown: what the address says, within what is stored; and how it goes on. */

import { computed, signal } from "../vendor/signals/signals.mjs";
import { address } from "./address.js";
import { ask, asError, askAgain, epoch, isReached, tokenIsWanted } from "./asking.js";
import { isBeingRead } from "./reading.js";
import { msOf, timeLiteral } from "./sql.js";

/**
 * @typedef {{since: number, until: number}} Range both in ms since 1970
 * @typedef {{resolution: "minute" | "hour" | "day", ms: number}} Step
 */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const UNITS = /** @type {Record<string, number>} */ ({ m: MINUTE, h: HOUR, d: DAY });
const REFRESH_MS = 10_000;
/** A store whose newest minute is older than this is at rest, or its senders are gone. */
const LIVE_MS = 10 * MINUTE;

export const LAST_CHOICES = ["15m", "1h", "6h", "24h"];
const DEFAULT_LAST = "1h";

/** From when to when there is something: null if nothing, undefined if that is not known yet. */
export const stored = signal(/** @type {Range | null | undefined} */ (undefined));
export const storedError = signal(/** @type {import("./asking.js").AskError | null} */ (null));
/** What clocks say, as often as is asked. */
export const now = signal(Date.now());

/** Whether new minutes come in. */
export const isFresh = computed(() => !!stored.value && now.value - stored.value.until < LIVE_MS);
/** Whether the page follows them. */
export const isLive = computed(() => {
  const { params } = address.value;
  return isFresh.value && params.live !== "off" && !params.to;
});

/** How long the range is that ends with the newest minute; "" where it has a begin of its own. */
export const last = computed(() => {
  const { params } = address.value;
  return params.from || params.to ? "" : (params.last ?? DEFAULT_LAST);
});

/** @type {import("../vendor/signals/signals.mjs").ReadonlySignal<Range | null>} */
export const range = computed(() => {
  const whole = stored.value;
  if (!whole) return null;
  const { params } = address.value;
  const until = timeOf(params.to) ?? whole.until;
  const since = timeOf(params.from) ?? until - (lengthOf(last.value) || lengthOf(DEFAULT_LAST));
  // Rates are per minute of what there is: before the first minute nobody looked.
  const from = Math.min(Math.max(since, whole.since), until - MINUTE);
  return { since: from, until };
});

/** What a chart of this range is made of. */
export const step = computed(() => {
  const length = range.value ? range.value.until - range.value.since : 0;
  /** @type {Step} */
  let found = { resolution: "day", ms: DAY };
  if (length <= 6 * HOUR) found = { resolution: "minute", ms: MINUTE };
  else if (length <= 10 * DAY) found = { resolution: "hour", ms: HOUR };
  return found;
});

/** The range as two arguments of a macro. */
export const between = computed(() => {
  const { since, until } = range.value ?? { since: 0, until: 0 };
  return `${timeLiteral(since)}, ${timeLiteral(until)}`;
});

/** The range as a condition on `time_bucket`, in the buckets of `step`. */
export const within = computed(() => {
  const { since, until } = range.value ?? { since: 0, until: 0 };
  const first = Math.floor(since / step.value.ms) * step.value.ms;
  return `time_bucket >= ${timeLiteral(first)} AND time_bucket < ${timeLiteral(until)}`;
});

/** Per minute: a `cpm` of a bucket of `step`, in SQL. @param {string} column */
export function rate(column) {
  return step.value.resolution === "minute" ? column : `round(${column} * ${step.value.ms / MINUTE} / minutes, 2)`;
}

/** Per minute: a sum of a bucket of `step`, in SQL. @param {string} column */
export function sumRate(column) {
  return step.value.resolution === "minute" ? column : `round(${column} / minutes, 2)`;
}

/** @param {string | undefined} text "1h30m" @returns {number} ms, 0 if it is none */
export function lengthOf(text) {
  if (!/^(\d+[mhd])+$/.test(text ?? "")) return 0;
  return [...(text ?? "").matchAll(/(\d+)([mhd])/g)].reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit], 0);
}

/** @param {string | undefined} text a time in UTC @returns {number | undefined} */
export function timeOf(text) {
  if (!text) return undefined;
  const ms = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`);
  return Number.isNaN(ms) ? undefined : Math.floor(ms / MINUTE) * MINUTE;
}

/** Ask what there is, now and then; gives what ends it. */
export function followTime() {
  void look();
  const timer = setInterval(() => {
    now.value = Date.now();
    const wants = isLive.value ? !isBeingRead.peek() : !isReached.peek() || !stored.peek();
    if (wants && !document.hidden) void look();
  }, REFRESH_MS);
  let seen = epoch.peek();
  const again = epoch.subscribe((/** @type {number} */ value) => {
    if (value !== seen) void look();
    seen = value;
  });
  return () => {
    clearInterval(timer);
    again();
  };
}

async function look() {
  // What failed meanwhile is asked again when the server is back.
  const wasLost = storedError.peek() !== null || !isReached.peek();
  try {
    const [row] = (await ask("FROM time_range", { isFresh: true })).rows;
    const found = row?.since && row.until ? { since: msOf(row.since), until: msOf(row.until) } : null;
    const before = stored.peek();
    storedError.value = null;
    if (!before || !found || before.since !== found.since || before.until !== found.until) stored.value = found;
    if (wasLost && before) askAgain();
  } catch (error) {
    if (!tokenIsWanted.peek()) storedError.value = asError(error);
  }
}
