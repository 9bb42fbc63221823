// The list of jobs that are not over, each with its progress and a way to end it.

import { button, make } from "./dom.js";
import { asText } from "./untrusted.js";
import { sayState } from "./viewer.js";

/** Shows the jobs in a list; `onshow` and `oncancel` are called with a job. */
export class QueueList {
  constructor(place, { onshow, oncancel }) {
    this.place = place;
    this.actions = { onshow, oncancel };
    this.rows = new Map();
  }

  update(job) {
    if (job.isOver) {
      this.#remove(job);
    } else {
      const row = this.rows.get(job) ?? this.#add(job);
      row.state.textContent = sayState(job);
      row.bar.value = job.progress.percent;
    }
    this.place.hidden = this.rows.size === 0;
  }

  #add(job) {
    const prompt = asText(job.input.prompt, 80) || "without a prompt";
    const state = make("span", { class: "state" });
    const bar = make("progress", { max: "100", "aria-label": `Progress of job ${job.number}` });
    const show = button(prompt, () => this.actions.onshow(job), { class: "quiet job-name", "aria-label": `Show job ${job.number}: ${prompt}` });
    const cancel = button("Cancel", () => this.actions.oncancel(job), { class: "quiet", "aria-label": `Cancel job ${job.number}` });
    const element = make("li", {}, show, state, bar, cancel);
    this.place.querySelector("ol").append(element);
    const row = { element, state, bar };
    this.rows.set(job, row);
    return row;
  }

  #remove(job) {
    const row = this.rows.get(job);
    if (!row) return;
    const focused = row.element.contains(document.activeElement);
    const next = row.element.nextElementSibling ?? row.element.previousElementSibling;
    row.element.remove();
    this.rows.delete(job);
    if (focused) (next?.querySelector("button:last-child") ?? document.getElementById("draw")).focus();
  }
}
