// Sizes: what the model can draw, and aspect buttons for about as many pixels as it draws by default.

import { button, make } from "./dom.js";

const ASPECTS = [
  ["1:1", 1, 1],
  ["4:3", 4, 3],
  ["3:4", 3, 4],
  ["3:2", 3, 2],
  ["2:3", 2, 3],
  ["16:9", 16, 9],
  ["9:16", 9, 16],
];

const MIN_SIDE = 64;

/** A field as it is; of width and height, the longest side that the model's pixels allow. */
export function limitSide(field, { step, maxPixels }) {
  if (!["width", "height"].includes(field.name) || maxPixels === Infinity) return field;
  const longest = Math.floor(maxPixels / (field.minimum ?? MIN_SIDE) / step) * step;
  return { ...field, maximum: Math.min(field.maximum ?? longest, longest) };
}

/** What width and height may be together, as a sentence; "" where it is not known. */
export function sayLimit({ step, maxPixels }) {
  if (maxPixels === Infinity) return "";
  const side = Math.floor(Math.sqrt(maxPixels) / step) * step;
  return `${maxPixels.toLocaleString("en")} pixels at most, such as ${side} × ${side}; sides in steps of ${step}`;
}

/** Width and height in multiples of the model's step. */
export function sizeOf(across, down, { width = 1024, height = 1024, step, maxPixels }) {
  const pixels = Math.min(width * height, maxPixels);
  const round = (side) => Math.max(step, MIN_SIDE, Math.round(side / step) * step);
  let sides = [round(Math.sqrt((pixels * across) / down)), round(Math.sqrt((pixels * down) / across))];
  while (sides[0] * sides[1] > maxPixels) sides = sides.map((side) => Math.max(step, side - step));
  return sides;
}

/** A row of buttons that set two widgets; the one that is set is pressed. */
export function makeAspects(size, width, height, onchange) {
  const buttons = ASPECTS.map(([name, across, down]) => {
    const [wide, high] = sizeOf(across, down, size);
    const set = () => {
      width.write(wide);
      height.write(high);
      onchange();
    };
    const icon = make("span", { class: "aspect-icon", "aria-hidden": "true" });
    icon.style.aspectRatio = `${across} / ${down}`;
    const one = button("", set, { "aria-label": `${name}, ${wide} by ${high} pixels`, title: `${wide} × ${high}` });
    one.append(icon, name);
    return { one, isSet: () => (width.read() ?? size.width) === wide && (height.read() ?? size.height) === high };
  });
  const element = make("div", { class: "aspects wide", role: "group", "aria-label": "Aspect" }, ...buttons.map(({ one }) => one));
  return { element, show: () => buttons.forEach(({ one, isSet }) => one.setAttribute("aria-pressed", String(isSet()))) };
}
