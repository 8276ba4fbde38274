// @ts-check
/** Whether somebody reads: nothing on the page should change then. */

import { signal } from "../vendor/signals/signals.mjs";

/** After so long without a movement nobody does. */
const READS_MS = 15_000;

export const isBeingRead = signal(false);

let lastMoved = 0;

/** @param {Event} event */
function moved(event) {
  const target = /** @type {Element | null} */ (event.target);
  // Who changes the range wants to see it.
  if (target instanceof Element && target.closest("header")) return;
  lastMoved = Date.now();
  isBeingRead.value = true;
}

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"]) {
  addEventListener(kind, moved, { passive: true });
}

setInterval(() => {
  const selects = !(getSelection()?.isCollapsed ?? true);
  const hasOpen = document.querySelector(".panel .sql, .picture .chosen") !== null;
  isBeingRead.value = selects || hasOpen || Date.now() - lastMoved < READS_MS;
}, 1_000);
