// @ts-check
/** What is shown may stand beside an earlier time of the same length: `vs` in the address. */

import { computed } from "../vendor/signals/signals.mjs";
import { address } from "./address.js";
import { useAnswer } from "./asking.js";
import { between, lengthOf, range, step, stored, timeOf, within } from "./range.js";
import { timeLiteral } from "./sql.js";

/** @typedef {import("./asking.js").Answer} Answer */

/** What `vs` may say, besides any other length (`3h`) and when the earlier time begins. */
export const VS_CHOICES = { "": "no comparison", before: "the time before", "1d": "a day earlier", "7d": "a week earlier" };
/** Views with something that is compared. */
export const COMPARED = new Set(["start", "service", "pod", "endpoint", "edge"]);

/** How far back the earlier time lies, in ms; 0 where nothing is compared. */
export const shift = computed(() => {
  const { view, params } = address.value;
  const now = range.value;
  if (!params.vs || !now || !COMPARED.has(view)) return 0;
  const begin = timeOf(params.vs);
  const wish = params.vs === "before" ? now.until - now.since : lengthOf(params.vs) || (begin === undefined ? 0 : now.since - begin);
  // Buckets stand beside buckets.
  return Math.max(0, Math.ceil(wish / step.value.ms) * step.value.ms);
});

/** @type {import("../vendor/signals/signals.mjs").ReadonlySignal<import("./range.js").Range | null>} */
export const earlierRange = computed(() => {
  if (!shift.value || !range.value || !stored.value) return null;
  const until = range.value.until - shift.value;
  const since = range.value.since - shift.value;
  // Before the first minute nobody looked: rates are per minute of what there is.
  return { since: stored.value.since < until ? Math.max(since, stored.value.since) : since, until };
});

/**
 * Return a statement about the earlier time; null without one, or where it is about no time.
 * @param {string} sql
 */
export function earlier(sql) {
  const time = earlierRange.value;
  if (!time) return null;
  const first = Math.floor(time.since / step.value.ms) * step.value.ms;
  const found = sql
    .replaceAll(between.value, `${timeLiteral(time.since)}, ${timeLiteral(time.until)}`)
    .replaceAll(within.value, `time_bucket >= ${timeLiteral(first)} AND time_bucket < ${timeLiteral(time.until)}`);
  // Who is among the first now may have been far down then.
  return found === sql ? null : found.replace(/\nLIMIT \d+$/, "");
}

/**
 * Ask the same about the earlier time; null where nothing is compared.
 * @param {string} sql
 * @returns {Answer | null}
 */
export function useEarlier(sql) {
  const text = earlier(sql);
  const answer = useAnswer(text);
  return text === null ? null : answer;
}
