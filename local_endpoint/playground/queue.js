// The jobs of this page: sent, watched, cancelled. A few are at the endpoint at a time, the others wait here.

import { asNumber, asObject, asText, readProblems, readProgress } from "./untrusted.js";
import { RUNNING } from "./endpoint.js";

const MAX_SENT = 4;
const STATES = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];
const NO_PROGRESS = { step: undefined, total: undefined, percent: 0, secondsLeft: undefined, preview: null };
let lastNumber = 0;

/** One job; `state` is RunPod's, or WAITING where it is not sent yet. */
export class Job {
  constructor(input, endpoint, id = null) {
    lastNumber += 1;
    this.number = lastNumber;
    this.input = input;
    this.endpoint = endpoint;
    this.state = "WAITING";
    this.progress = NO_PROGRESS;
    this.id = id; // the endpoint's; null until it is sent
    this.output = {};
    this.error = "";
    this.problems = [];
    this.seconds = undefined;
    this.answer = null;
    this.items = []; // its pictures, once they are kept
    this.sent = this.cancelled = this.followed = false;
  }

  get isOver() {
    return !["WAITING", ...RUNNING].includes(this.state);
  }
}

/** Runs jobs in their order. `onchange(job)` hears of every change. */
export class Queue {
  constructor(onchange) {
    this.jobs = [];
    this.onchange = onchange;
  }

  add(inputs, endpoint) {
    return this.#take(inputs.map((input) => new Job(input, endpoint)));
  }

  /** Goes on with jobs of an earlier visit: {id, input}. */
  resume(entries, endpoint) {
    return this.#take(entries.map(({ id, input }) => new Job(input, endpoint, id)));
  }

  #take(jobs) {
    this.jobs.push(...jobs);
    jobs.forEach(this.onchange);
    this.#sendNext();
    return jobs;
  }

  async cancel(job) {
    if (job.isOver) return;
    const id = job.id;
    job.cancelled = true;
    this.#set(job, { state: "CANCELLED" });
    if (id) await job.endpoint.cancel(id).catch((error) => this.#set(job, { error: `It may go on: ${error.message}` }));
  }

  /** Forgets the jobs that are over. */
  tidy() {
    this.jobs = this.jobs.filter((job) => !job.isOver);
  }

  #turn = Promise.resolve(); // to send, one job after the other, so that they stay in their order

  #send(job) {
    const sending = this.#turn.then(() => job.endpoint.run(job.input));
    this.#turn = sending.catch(() => {});
    return sending;
  }

  #sendNext() {
    const sent = this.jobs.filter((job) => job.sent && !job.isOver).length;
    const next = this.jobs.filter((job) => job.state === "WAITING" && !job.sent).slice(0, Math.max(0, MAX_SENT - sent));
    next.forEach((job) => this.#run(job).finally(() => this.#sendNext()));
  }

  async #run(job) {
    job.sent = true;
    try {
      let answer = asObject(await (job.id ? job.endpoint.status(job.id) : this.#send(job)));
      job.id ??= asText(answer.id, 200);
      if (job.cancelled) return void (await job.endpoint.cancel(job.id));
      for (let asked = 0; RUNNING.includes(answer.status) && !job.cancelled; asked += 1) {
        this.#set(job, { state: answer.status, progress: readProgress(answer.output) });
        await job.endpoint.pause(asked);
        if (!job.cancelled) answer = asObject(await job.endpoint.status(job.id));
      }
      if (!job.cancelled) this.#end(job, answer);
    } catch (error) {
      if (!job.cancelled) this.#set(job, { state: "FAILED", error: error.message, status: error.status });
    }
  }

  #end(job, answer) {
    const output = asObject(answer.output);
    const milliseconds = asNumber(answer.executionTime);
    this.#set(job, {
      state: STATES.includes(answer.status) ? answer.status : "FAILED",
      output,
      answer,
      error: asText(answer.error ?? output.error ?? (STATES.includes(answer.status) ? "" : "The endpoint's answer has no status.")),
      problems: readProblems(output),
      seconds: milliseconds === undefined ? undefined : milliseconds / 1000,
    });
  }

  #set(job, changes) {
    Object.assign(job, changes);
    this.onchange(job);
  }
}
