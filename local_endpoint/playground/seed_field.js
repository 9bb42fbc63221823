// The seed: random unless it is locked. A lock keeps the seed of the last picture, or the one that was typed.

import { button, make } from "./dom.js";
import { asNumber, asText } from "./untrusted.js";
import { frame } from "./widgets.js";

/** A widget that reads a number, or undefined for random. */
export function makeSeedField(field, onchange) {
  let last = null;
  const control = make("input", { inputmode: "numeric", autocomplete: "off", placeholder: "random", oninput: () => (setLock(control.value.trim() !== ""), onchange()) });
  const lock = button("Lock", () => {
    const locked = lock.getAttribute("aria-pressed") !== "true";
    control.value = locked ? (last ?? Math.floor(Math.random() * 2 ** 32)) : "";
    setLock(locked);
    onchange();
  });
  function setLock(locked) {
    lock.setAttribute("aria-pressed", String(locked));
    lock.textContent = locked ? "Locked" : "Lock";
    lock.setAttribute("aria-label", locked ? "Seed is locked; unlock for a random one" : "Lock the seed");
  }
  setLock(false);
  const read = () => {
    const text = control.value.trim();
    return text === "" ? undefined : /^-?\d+$/.test(text) ? Number(text) : text;
  };
  const write = (value) => {
    const seed = asNumber(value);
    control.value = seed === undefined ? "" : seed;
    setLock(seed !== undefined);
    onchange();
  };
  /** Remembers the seed of what was drawn last, for the lock. */
  const note = (seed) => {
    last = seed;
    if (control.value === "") control.placeholder = `random, last ${asText(seed, 20)}`;
  };
  const row = make("div", { class: "seed" }, lock);
  const framed = frame(field, control, "Seed", row, "seed-field wide");
  return { ...framed, control, read, write, note };
}
