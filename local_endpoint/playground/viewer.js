// The stage: the job that is drawn, the pictures that came of it, or a batch as a grid.

import { button, make } from "./dom.js";
import { addressOf, fileName, makeImage } from "./items.js";
import { asList, asText, shorten } from "./untrusted.js";

const SAID = { WAITING: "Waiting here", IN_QUEUE: "In the queue", IN_PROGRESS: "Drawing", COMPLETED: "Done", FAILED: "Failed", CANCELLED: "Cancelled", TIMED_OUT: "Timed out" };

/** A job's state for people. */
export function sayState(job) {
  const { step, total, secondsLeft } = job.progress;
  const steps = job.state === "IN_PROGRESS" && step !== undefined ? `, step ${step} of ${total}` : "";
  const left = steps && secondsLeft !== undefined ? `, ${Math.ceil(secondsLeft)} s left` : "";
  const took = job.state === "COMPLETED" && job.seconds !== undefined ? ` in ${job.seconds.toFixed(1)} s` : "";
  return (SAID[job.state] ?? "Unknown") + steps + left + took;
}

export class Viewer {
  /** @param {Array} actions {text, run(item), fits(item)} for pictures. */
  constructor(stage, actions) {
    this.stage = stage;
    this.actions = actions;
    this.shown = null; // a job, a batch, or null
  }

  /** Shows a job and follows it. */
  showJob(job) {
    this.shown = job;
    const preview = make("div", { class: "preview" });
    const bar = make("progress", { max: "100", "aria-label": "Progress" });
    const state = make("p", { class: "state" });
    this.stage.replaceChildren(preview, make("div", { class: "progress-row" }, bar, state));
    this.#update = () => {
      if (job.isOver) return this.#showEnd(job);
      this.#showPreview(preview, job);
      if (job.state === "IN_PROGRESS" && job.progress.step !== undefined) bar.value = job.progress.percent;
      else bar.removeAttribute("value");
      state.textContent = sayState(job);
    };
    this.#update();
  }

  /** Shows a batch as a grid, each job in its cell. */
  showBatch({ jobs, rows, columns }) {
    this.shown = { jobs };
    const cells = jobs.map(() => make("td"));
    const head = make("tr", {}, make("td"), ...columns.map((name) => make("th", { scope: "col" }, name)));
    const body = rows.map((name, row) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.slice(row * columns.length, (row + 1) * columns.length)));
    const table = make("table", { class: "grid" }, make("caption", {}, `${rows.length} prompts × ${columns.length} seeds`), make("thead", {}, head), make("tbody", {}, ...body));
    this.stage.replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Batch" }, table));
    const drawn = new Map();
    this.#update = (changed) => jobs.forEach((job, at) => (changed && job !== changed) || this.#showCell(cells[at], job, drawn));
    this.#update();
  }

  /** Shows pictures that are there already. */
  showItems(items) {
    this.shown = null;
    this.#update = () => {};
    this.stage.replaceChildren(this.#makeFigures(items));
  }

  /** Hears that a job has changed. */
  update(job) {
    if (this.shown === job || this.shown?.jobs?.includes(job)) this.#update(job);
  }

  #update = () => {};

  #showPreview(place, job) {
    const { preview } = job.progress;
    if (!preview) return void (place.children.length || place.append(make("p", { class: "soft" }, job.state === "IN_PROGRESS" ? "Being drawn" : "Waiting for a worker")));
    const image = place.querySelector("img") ?? make("img", { alt: "What there is of the picture so far" });
    const before = image.src;
    image.src = URL.createObjectURL(preview);
    if (before) URL.revokeObjectURL(before);
    if (!image.isConnected) place.replaceChildren(image);
  }

  #showEnd(job) {
    const notes = asList(job.output.warnings).map((one) => make("li", {}, asText(one, 500)));
    const answer = make("details", {}, make("summary", {}, "Answer"), make("pre", { tabindex: "0", role: "region", "aria-label": "Answer" }, shorten(job.answer)));
    const { items } = job;
    const nothing = job.state === "COMPLETED" && !items.length && make("p", { class: "error" }, "The answer holds no picture that can be shown.");
    const error = job.error && make("p", { class: "error" }, job.error);
    this.stage.replaceChildren(...[items.length && this.#makeFigures(items), make("p", { class: "state" }, sayState(job)), error, nothing, notes.length && make("ul", { class: "notes" }, ...notes), job.answer && answer].filter(Boolean));
  }

  #makeFigures(items) {
    return make("div", { class: items.length > 1 ? "figures many" : "figures" }, ...items.map((item) => this.#makeFigure(item)));
  }

  #makeFigure(item) {
    const save = make("a", { class: "button", href: addressOf(item), download: fileName(item), rel: "noopener noreferrer", target: item.blob ? null : "_blank" }, "Save");
    const fitting = this.actions.filter((action) => action.fits(item)).map((action) => button(action.text, () => action.run(item)));
    const facts = [item.seed !== undefined && `seed ${item.seed}`, item.width && `${item.width} × ${item.height}`, item.steps && `${item.steps} steps`, item.seconds !== undefined && `${item.seconds.toFixed(1)} s`];
    const caption = make("figcaption", {}, make("p", { class: "prompt" }, item.prompt), make("p", { class: "facts" }, facts.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ")), make("div", { class: "tools" }, save, ...fitting));
    return make("figure", {}, makeImage(item), caption);
  }

  #showCell(cell, job, drawn) {
    const kept = drawn.get(job);
    const [item] = job.items;
    if (kept && kept === item) return;
    drawn.set(job, item);
    if (item) cell.replaceChildren(make("button", { type: "button", class: "thumb", "aria-label": `Show ${item.prompt}, seed ${item.seed}`, onclick: () => this.showItems(job.items) }, makeImage(item, "")));
    else cell.replaceChildren(make("p", { class: job.error ? "error" : "soft" }, job.error || sayState(job)));
  }
}
