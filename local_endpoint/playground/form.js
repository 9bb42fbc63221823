// The form of one model: the fields that it takes, in sections, shown where the task at hand has a use for them.

import { find, make } from "./dom.js";
import { NEEDS_IMAGE, NEEDS_MASK, NOT_SHOWN, SECTIONS, sectionOf } from "./labels.js";
import { makeSeedField } from "./seed_field.js";
import { makeAspects, sayLimit } from "./sizes.js";
import { makeWidget } from "./widgets.js";

const OPEN = matchMedia("(max-width: 52rem)").matches ? [] : ["Size", "Sampling"]; // a phone has no room for them

/** The form of a model: read(), write(fields), explain(problems), task(), widgets. */
export class Form {
  /** @param {Element} place takes the sections; "Prompt" goes into `promptPlace`. */
  constructor(place, promptPlace, capabilities, onchange) {
    this.capabilities = capabilities;
    this.widgets = new Map();
    this.#onchange = onchange;
    const fields = capabilities.fields.filter((field) => !NOT_SHOWN.includes(field.name));
    for (const field of fields) {
      const make = field.name === "seed" ? makeSeedField : makeWidget;
      this.widgets.set(field.name, make(field, () => this.#changed()));
    }
    const sections = Object.keys(SECTIONS).map((name) => this.#makeSection(name, fields)).filter(Boolean);
    promptPlace.replaceChildren(...this.#elements("Prompt", fields));
    place.replaceChildren(...sections);
    this.#ready = true;
    this.#changed();
  }

  #onchange;
  #ready = false;
  #aspects = null;

  #elements(section, fields) {
    const named = fields.filter((field) => sectionOf(field.name) === section).map((field) => field.name);
    const order = [...SECTIONS[section].filter((name) => named.includes(name)), ...named.filter((name) => !SECTIONS[section].includes(name))];
    return order.map((name) => this.widgets.get(name).element);
  }

  #makeSection(name, fields) {
    const elements = name === "Prompt" ? [] : this.#elements(name, fields);
    if (!elements.length) return null;
    if (name === "Size" && this.widgets.has("width") && this.widgets.has("height")) {
      this.#aspects = makeAspects(this.capabilities.size, this.widgets.get("width"), this.widgets.get("height"), () => this.#changed());
      const limit = sayLimit(this.capabilities.size);
      elements.unshift(this.#aspects.element);
      if (limit) elements.splice(3, 0, make("p", { class: "limit wide" }, limit));
    }
    return make("details", { class: "section", open: OPEN.includes(name), "data-section": name }, make("summary", {}, name), make("div", { class: "fields" }, ...elements));
  }

  /** The fields that are filled in, as a job's input. */
  read() {
    const shown = [...this.widgets].filter(([, widget]) => !widget.element.hidden);
    const input = Object.fromEntries(shown.map(([name, widget]) => [name, widget.read()]).filter(([, value]) => value !== undefined));
    if (input.mask_blur === 0) delete input.mask_blur;
    return input;
  }

  /** Shows these fields and empties the others; the names of those that this model does not take. */
  write(fields) {
    this.widgets.forEach((widget, name) => {
      if (name !== "preview") widget.write(fields[name] ?? undefined);
    });
    this.#changed();
    this.#openFilled();
    return Object.keys(fields).filter((name) => !this.widgets.has(name));
  }

  #openFilled() {
    for (const [name, widget] of this.widgets) {
      const section = widget.element.closest("details");
      if (section && name !== "preview" && widget.read() !== undefined) section.open = true;
    }
  }

  /** Shows each problem at its field, goes to the first, and returns those that belong to none. */
  explain(problems) {
    this.widgets.forEach((widget) => widget.explain("", []));
    const elsewhere = problems.filter(({ field, problem }) => {
      const [name, ...path] = field.split(".");
      this.widgets.get(name)?.explain(problem, path);
      return !this.widgets.has(name);
    });
    const bad = find("form [aria-invalid=true]");
    if (bad) {
      const section = bad.closest("details");
      if (section) section.open = true;
      bad.focus();
    }
    return elsewhere;
  }

  /** The task that is asked for by what is filled in. */
  task() {
    const given = this.#given();
    const fitting = this.capabilities.tasks.filter((task) => task.needs.every((name) => given.has(name)));
    const most = Math.max(...fitting.map((task) => task.needs.length));
    return fitting.find((task) => task.needs.length === most) ?? null;
  }

  #given() {
    const given = new Set(["image", "images", "mask", "controlnet"].filter((name) => this.widgets.get(name)?.read() !== undefined));
    if (this.widgets.get("outpaint")?.read()) given.add("mask");
    const edits = this.capabilities.tasks.some((task) => task.needs.includes("images"));
    if (edits && given.has("image") && !given.has("mask")) given.add("images").delete("image");
    return given;
  }

  #changed() {
    if (!this.#ready) return;
    const image = ["image", "images"].some((name) => this.widgets.get(name)?.read() !== undefined);
    const mask = this.widgets.get("mask")?.read() !== undefined;
    const refused = this.task()?.refuses ?? [];
    this.widgets.forEach((widget, name) => {
      const idle = (NEEDS_IMAGE.includes(name) && !image) || (NEEDS_MASK.includes(name) && !mask);
      widget.element.hidden = idle || refused.includes(name);
    });
    this.#boundSteps();
    this.#showStrength();
    this.#aspects?.show();
    this.#onchange();
  }

  #boundSteps() {
    const [steps, scheduler] = [this.widgets.get("num_inference_steps"), this.widgets.get("scheduler")];
    const row = this.capabilities.schedulers.find((one) => one.name === scheduler?.read());
    if (steps?.bound && row) steps.bound(row.min_steps, row.max_steps);
  }

  #showStrength() {
    const strength = this.task()?.strength;
    if (strength !== undefined) this.widgets.get("strength")?.suggest(strength);
  }
}
