// @ts-check
/** Values with the units of files, which are texts. */

import { bytes, digits } from "../core/format.js";

const LONGER = /** @type {[number, string][]} */ ([[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]]);

/** Whether values of a unit are written with one that is made for their size. @param {string} unit */
export function isScaled(unit) {
  return unit === "ns" || /^b(ytes)?$/i.test(unit);
}

/** @param {number | null | undefined} value @param {string} [unit] */
export function valueShown(value, unit = "") {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (unit === "ns") return nanoseconds(value);
  if (/^b(ytes)?( ?\/ ?\w+)?$/i.test(unit)) return bytes(value);
  if (unit !== "%") return digits(value);
  // A single failure among many is no full success.
  return value > 99.9 && value < 100 ? (Math.floor(value * 100) / 100).toFixed(2) : digits(value);
}

/** With its unit. @param {number | null | undefined} value @param {string} [unit] */
export function valueWhole(value, unit = "") {
  const text = valueShown(value, unit);
  if (text === "–" || !unit) return text;
  const per = /^b(?:ytes)?( ?\/ ?\w+)$/i.exec(unit);
  if (isScaled(unit)) return text;
  if (per) return `${text}${per[1]}`;
  return unit === "%" ? `${text}%` : `${text} ${unit}`;
}

/** @param {number} value */
function nanoseconds(value) {
  const [size, unit] = LONGER.find(([one]) => Math.abs(value) >= one) ?? [1, "ns"];
  return value === 0 ? "0" : `${digits(value / size)} ${unit}`;
}

/** The unit that all have, "" where they differ. @param {{unit: string}[]} of */
export function commonUnit(of) {
  const units = new Set(of.map(({ unit }) => unit));
  return units.size === 1 ? [...units][0] : "";
}
