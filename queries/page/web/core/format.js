// @ts-check
/** Numbers and times for people. */

import { address } from "./address.js";

const BYTES = ["B", "KB", "MB", "GB", "TB", "PB"];

/**
 * @typedef {"count" | "per_minute" | "percent" | "ms" | "us" | "bytes" | "bytes_per_minute" | "time" | "text" | "number" | "plain"} Unit
 */

/** @param {any} value @param {Unit} [unit] @returns {string} */
export function shown(value, unit = "text") {
  if (value === null || value === undefined) return "–";
  switch (unit) {
    case "count":
    case "per_minute":
      return short(Number(value));
    case "percent":
      return percentShown(Number(value));
    case "ms":
      return `${digits(Number(value))}`;
    case "us":
    case "number":
      return digits(Number(value));
    case "bytes":
    case "bytes_per_minute":
      return bytes(Number(value));
    case "time":
      return typeof value === "number" ? time(value) : time(Date.parse(`${value}Z`));
    default:
      return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
}

/** What stands behind a value of a unit. @param {Unit} [unit] */
export function suffix(unit) {
  const names = { per_minute: "/min", percent: "%", ms: "ms", us: "µs", bytes_per_minute: "/min" };
  return /** @type {Record<string, string>} */ (names)[unit ?? ""] ?? "";
}

/** With its unit. @param {any} value @param {Unit} [unit] */
export function whole(value, unit) {
  const text = shown(value, unit);
  const after = suffix(unit);
  return text === "–" || !after ? text : `${text}${after.startsWith("/") || after === "%" ? "" : " "}${after}`;
}

/** @param {number} value */
function percentShown(value) {
  if (value === 0 || value === 100) return String(value);
  // A single failure among many is no full success.
  if (value > 99.9) return (Math.floor(value * 100) / 100).toFixed(2);
  return value < 0.1 ? value.toFixed(2) : value.toFixed(1);
}

/** Three digits that count. @param {number} value */
export function digits(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return short(value);
  if (size >= 100 || value === 0) return grouped(Math.round(value));
  if (size >= 10) return trimmed(value.toFixed(1));
  if (size >= 1) return trimmed(value.toFixed(2));
  return String(Number(value.toPrecision(2)));
}

/** @param {number} value */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${trimmed((value / 1e9).toFixed(size >= 1e10 ? 0 : 1))}G`;
  if (size >= 1e6) return `${trimmed((value / 1e6).toFixed(size >= 1e7 ? 0 : 1))}M`;
  if (size >= 1e4) return grouped(Math.round(value));
  return size >= 100 ? grouped(Math.round(value)) : trimmed(value.toFixed(1));
}

/** @param {number} value */
export function bytes(value) {
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < BYTES.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${digits(size)} ${BYTES[unit]}`;
}

/** @param {string} text */
function trimmed(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** @param {number} value */
function grouped(value) {
  return value.toLocaleString("en-US");
}

/** Whether times are shown in the zone of this browser. */
export function isLocal() {
  return address.value.params.tz === "local";
}

/** @param {number} ms */
export function parts(ms) {
  const date = new Date(isLocal() ? ms - new Date(ms).getTimezoneOffset() * 60_000 : ms);
  const [day, clock] = date.toISOString().split("T");
  return { day, clock: clock.slice(0, 5), seconds: clock.slice(0, 8) };
}

/** @param {number} ms */
export function time(ms) {
  const { day, clock } = parts(ms);
  return `${day} ${clock}`;
}

/** @param {{since: number, until: number}} range */
export function rangeShown({ since, until }) {
  const [from, to] = [parts(since), parts(until)];
  return from.day === to.day ? `${from.day} ${from.clock} – ${to.clock}` : `${time(since)} – ${time(until)}`;
}

/** How long ago, or how long. @param {number} ms */
export function length(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}
