// @ts-check
/** Light or dark: as the machine has it, until somebody chooses; kept in this browser. */

import { effect, signal } from "../vendor/signals/signals.mjs";

const KEY = "framewalk-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

const chosen = signal(localStorage.getItem(KEY));
const systemIsDark = signal(system.matches);
system.addEventListener("change", () => {
  systemIsDark.value = system.matches;
});

/** @type {{value: boolean}} */
export const isDark = {
  get value() {
    return chosen.value === null ? systemIsDark.value : chosen.value === "dark";
  },
};

effect(() => {
  document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
});

export function flipTheme() {
  chosen.value = isDark.value ? "light" : "dark";
  localStorage.setItem(KEY, chosen.value);
}

/** The colour that a name of the styles stands for now, as canvases take it. @param {string} name */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
