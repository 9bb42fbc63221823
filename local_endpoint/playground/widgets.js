// One field of a form from its description: {element, read, write, explain}. Empty means left out.

import { button, make, newId } from "./dom.js";
import { labelOf } from "./labels.js";
import { makePictureSlot } from "./picture_slot.js";
import { showProblem } from "./problems.js";
import { asList, asNumber, asObject, asText } from "./untrusted.js";

const LONG_TEXTS = ["prompt", "negative_prompt"];
const MAX_SLIDER_SPAN = 2_000;
const MAX_ENTRIES = 100; // of a list

/**
 * A widget. `read` gives the value or undefined, `write` shows one, `explain` shows a problem ("" for none).
 * @param {object} field as the capabilities describe it
 * @param {Function} onchange called when its value has changed
 */
export function makeWidget(field, onchange, label = labelOf(field.name)) {
  if (field.many && field.type === "object") return makeList(field, onchange, label);
  if (field.many && field.type === "picture") return makeList(pictureEntry(field), onchange, label);
  if (field.type === "object") return makeObject(field, onchange, label);
  if (field.type === "picture") return makePictureSlot(field, onchange, label);
  if (field.type === "boolean" || isSwitch(field)) return makeCheckbox(field, onchange, label);
  if (field.choices) return makeChoice(field, onchange, label);
  if (["integer", "number"].includes(field.type)) return makeNumber(field, onchange, label);
  return makeText(field, onchange, label);
}

// AUTOMATIC1111 writes some switches as 0 and 1.
const isSwitch = ({ type, minimum, maximum }) => type === "integer" && minimum === 0 && maximum === 1;

/** A control with its label, its meaning and room for a problem. */
export function frame(field, control, label, beside = null, extra = "") {
  const id = (control.id ||= newId(field.name));
  const hint = make("span", { id: `${id}-hint`, hidden: true }, asText(field.meaning));
  const problem = make("p", { id: `${id}-problem`, class: "problem", hidden: true });
  control.setAttribute("aria-describedby", `${hint.id} ${problem.id}`);
  const range = boundsOf(field);
  const head = make("div", { class: "field-head" }, make("label", { for: id }, label), range && make("span", { class: "bounds" }, range));
  const element = make("div", { class: `field ${extra}`, title: asText(field.meaning), "data-field": field.name }, head, control, beside, hint, problem);
  return { element, explain: (text) => showProblem(control, problem, text) };
}

function boundsOf({ type, minimum, maximum, exclusive_minimum: above, exclusive_maximum: below }) {
  const [low, high] = [asNumber(minimum) ?? asNumber(above), asNumber(maximum) ?? asNumber(below)];
  if (!["integer", "number"].includes(type) || low === undefined || high === undefined) return "";
  return high > 1e6 ? "" : `${low} – ${high}`;
}

function makeText(field, onchange, label) {
  const long = LONG_TEXTS.includes(field.name);
  const rows = { prompt: "4", negative_prompt: "2" }[field.name];
  const control = make(long ? "textarea" : "input", { rows, placeholder: asText(field.default, 200), autocomplete: "off", spellcheck: long ? "true" : "false", oninput: onchange });
  const read = () => (control.value === "" ? undefined : control.value);
  return { ...frame(field, control, label, null, "wide"), control, read, write: (value) => void (control.value = asText(value, 20_000)) };
}

function makeChoice(field, onchange, label) {
  const named = field.default === undefined ? "Default" : `Default (${asText(field.default, 60)})`;
  const options = asList(field.choices, 5_000).map((choice) => make("option", { value: asText(choice, 300) }, asText(choice, 300)));
  const control = make("select", { onchange }, make("option", { value: "" }, named), ...options);
  const write = (value) => {
    control.value = asText(value, 300);
    if (control.selectedIndex < 0) control.value = "";
  };
  return { ...frame(field, control, label, null, field.name === "scheduler" ? "wide" : ""), control, read: () => control.value || undefined, write };
}

function makeCheckbox(field, onchange, label) {
  const id = newId(field.name);
  const problem = make("p", { id: `${id}-problem`, class: "problem", hidden: true });
  const first = field.name === "preview" || field.default === true;
  const control = make("input", { type: "checkbox", id, checked: first, onchange, "aria-describedby": problem.id });
  const element = make("div", { class: "field check wide", title: asText(field.meaning), "data-field": field.name }, control, make("label", { for: id }, label), problem);
  const read = () => (control.checked ? (isSwitch(field) ? 1 : true) : undefined);
  return { element, control, read, write: (value) => void (control.checked = Boolean(value)), explain: (text) => showProblem(control, problem, text) };
}

function makeNumber(field, onchange, label) {
  const [low, high] = [field.minimum ?? field.exclusive_minimum, field.maximum ?? field.exclusive_maximum].map(asNumber);
  const step = asNumber(field.step) ?? (field.type === "integer" ? 1 : "any");
  const control = make("input", { type: "number", inputmode: field.type === "integer" ? "numeric" : "decimal", min: low, max: high, step, placeholder: asText(field.default ?? "", 20), autocomplete: "off" });
  const slides = low !== undefined && high !== undefined && high - low <= MAX_SLIDER_SPAN && !["quality"].includes(field.name);
  const slider = slides && make("input", { type: "range", min: low, max: high, step: step === "any" ? 0.05 : step, tabindex: "-1", "aria-hidden": "true" });
  const show = () => {
    if (!slider) return;
    slider.value = control.value || control.placeholder;
    slider.hidden = control.placeholder === ""; // it would stand at a value that nobody has chosen
  };
  const suggest = (value) => ((control.placeholder = asText(value, 20)), show());
  control.addEventListener("input", () => (show(), onchange()));
  if (slider) slider.addEventListener("input", () => ((control.value = slider.value), onchange()));
  show();
  const read = () => (control.value === "" || !Number.isFinite(Number(control.value)) ? undefined : Number(control.value));
  const bound = (lowest, highest) => [control, slider].filter(Boolean).forEach((one) => Object.assign(one, { min: lowest, max: highest }));
  return { ...frame(field, control, label, slider || null, slider ? "slides" : ""), control, read, bound, suggest, write: (value) => ((control.value = asNumber(value) ?? ""), show()) };
}

/** The parts of an object, one after the other. */
function makeParts(field, onchange) {
  const parts = asList(field.parts).map((part) => [part.name, makeWidget(part, onchange)]);
  const read = () => Object.fromEntries(parts.map(([name, part]) => [name, part.read()]).filter(([, value]) => value !== undefined));
  const write = (value) => parts.forEach(([name, part]) => part.write(asObject(value)[name]));
  const explain = (text, path = []) => {
    const part = parts.find(([name]) => name === path[0]);
    if (part) part[1].explain(text, path.slice(1));
    else if (!text) parts.forEach(([, one]) => one.explain(""));
    return Boolean(part);
  };
  return { elements: parts.map(([, part]) => part.element), parts: Object.fromEntries(parts), read, write, explain };
}

function makeObject(field, onchange, label) {
  const inner = makeParts(field, onchange);
  const problem = make("p", { class: "problem", hidden: true });
  const body = make("div", { class: "parts", hidden: true }, ...inner.elements);
  const use = make("input", { type: "checkbox", id: newId(field.name) });
  use.addEventListener("change", () => ((body.hidden = !use.checked), onchange()));
  const head = make("div", { class: "check" }, use, make("label", { for: use.id }, label));
  const element = make("div", { class: "field wide", role: "group", "aria-label": label, title: asText(field.meaning), "data-field": field.name }, head, body, problem);
  const write = (value) => {
    use.checked = value !== undefined && value !== null;
    body.hidden = !use.checked;
    inner.write(value);
  };
  const explain = (text, path) => (inner.explain(text, path) && text) || showProblem(use, problem, text);
  return { element, control: use, read: () => (use.checked ? inner.read() : undefined), write, explain, parts: inner.parts };
}

const pictureEntry = (field) => ({ ...field, parts: [{ name: "picture", type: "picture", meaning: field.meaning }], plain: "picture" });

/** Entries that are added and taken away. */
function makeList(field, onchange, label) {
  const max = Math.min(asNumber(field.max_items) ?? 8, MAX_ENTRIES);
  const entries = [];
  const list = make("div", { class: "entries" });
  const problem = make("p", { class: "problem", hidden: true });
  const add = (value) => {
    const inner = makeParts(field, onchange);
    const entry = { ...inner, element: null };
    const remove = button("Remove", () => (entries.splice(entries.indexOf(entry), 1), entry.element.remove(), changed(), more.focus()), { class: "quiet" });
    entry.element = make("div", { class: "entry parts", role: "group", "aria-label": `${label} ${entries.length + 1}` }, ...inner.elements, remove);
    entries.push(entry);
    list.append(entry.element);
    if (value !== undefined) inner.write(field.plain ? { [field.plain]: value } : value);
    changed();
    return entry;
  };
  const changed = () => ((more.disabled = entries.length >= max), onchange());
  const more = button(`Add ${label.replace(/s$/, "")}`, () => add().element.querySelector("input, select, button").focus());
  const element = make("div", { class: "field wide", role: "group", "aria-label": label, title: asText(field.meaning), "data-field": field.name }, list, more, problem);
  const read = () => {
    const values = entries.map((entry) => entry.read()).map((one) => (field.plain ? one[field.plain] : one));
    const filled = values.filter((one) => (field.plain ? one !== undefined : Object.keys(one).length));
    return filled.length ? filled : undefined;
  };
  const write = (value) => {
    entries.splice(0).forEach((entry) => entry.element.remove());
    asList(Array.isArray(value) || value === undefined || value === null ? value : [value], max).forEach((one) => add(typeof one === "string" && !field.plain ? { name: one } : one));
    changed();
  };
  const explain = (text, path = []) => {
    const told = entries[Number(path[0])]?.explain(text, path.slice(1));
    if (!text) entries.forEach((entry) => entry.explain(""));
    if (!told || !text) showProblem(more, problem, text);
  };
  return { element, control: more, read, write, explain };
}
