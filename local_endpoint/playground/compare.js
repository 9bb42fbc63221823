// Two pictures: one over the other behind a border that moves, or side by side.

import { find, make, openDialog } from "./dom.js";
import { makeImage } from "./items.js";

/** Wires the dialog. Returns open(two pictures). */
export function wireCompare(dialog) {
  const [place, slider, beside, facts] = ["#compare-place", "#compare-slider", "#compare-beside", "#compare-facts"].map((one) => find(one, dialog));
  const move = () => {
    place.style.setProperty("--border", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % of the first picture`);
  };
  slider.addEventListener("input", move);
  beside.addEventListener("change", () => {
    place.classList.toggle("beside", beside.checked);
    slider.disabled = beside.checked;
  });
  place.addEventListener("pointermove", (event) => {
    if (beside.checked || (event.pointerType === "mouse" && event.buttons === 0)) return;
    const box = place.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    move();
  });
  find("#compare-close", dialog).addEventListener("click", () => dialog.close());

  return ([first, second]) => {
    place.replaceChildren(makeImage(first), makeImage(second));
    facts.replaceChildren(...listDifferences(first, second));
    slider.value = 50;
    move();
    openDialog(dialog);
  };
}

/** The fields in which two requests differ, as rows of a table. */
function listDifferences(first, second) {
  const [left, right] = [first, second].map(({ input, seed }) => ({ ...input, seed }));
  const names = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  return names.filter((name) => said(left[name]) !== said(right[name])).map((name) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, said(left[name])), make("td", {}, said(right[name]))));
}

function said(value) {
  if (value === undefined) return "left out";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.replace(/<a picture: [^>]*>/g, "a picture").slice(0, 300);
}
