// RunPod's queue API, asked from a browser. The key leaves the page in one header, to the chosen endpoint alone.

import { asObject, asText } from "./untrusted.js";

export const RUNPOD = "https://api.runpod.ai";
export const RUNNING = ["IN_QUEUE", "IN_PROGRESS"];
const MAX_TRIES = 6; // of a call that fails for a reason that passes
const FIRST_PAUSE_MS = 500;
const FIRST_LOOK_MS = 150;

/** A call that was refused; `status` is that of HTTP, 0 where there was no answer. */
export class CallError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** One endpoint and the key to it. */
export class Endpoint {
  constructor({ local, id, key }) {
    this.local = local;
    this.id = id;
    this.url = local ? `${location.origin}/v2/${encodeURIComponent(id)}` : `${RUNPOD}/v2/${encodeURIComponent(id)}`;
    this.maxPauseMs = local ? 300 : 1000;
    this.#key = key;
  }

  #key;

  run = (input) => this.#call("POST", "/run", { input });
  cancel = (jobId) => this.#patiently("POST", `/cancel/${encodeURIComponent(jobId)}`);
  status = (jobId) => this.#patiently("GET", `/status/${encodeURIComponent(jobId)}`);

  /** Runs a job to its end; `onStatus` hears of it meanwhile. */
  async runToEnd(input, onStatus = () => {}) {
    let job = asObject(await this.run(input));
    const id = asText(job.id, 200);
    for (let asked = 0; RUNNING.includes(job.status); asked += 1) {
      onStatus(job);
      await this.pause(asked);
      job = asObject(await this.status(id));
    }
    return job;
  }

  /** The time between two looks at a job, short at first. */
  pause = (asked) => pause(Math.min(this.maxPauseMs, FIRST_LOOK_MS * (asked + 1)));

  /** Tries again what fails for a reason that passes: too many requests, a fault of the server, no connection. */
  async #patiently(method, path) {
    for (let tried = 1; ; tried += 1) {
      try {
        return await this.#call(method, path);
      } catch (error) {
        const passes = error.status === 0 || error.status === 429 || error.status >= 500;
        if (!passes || tried === MAX_TRIES) throw error;
        await pause(FIRST_PAUSE_MS * 2 ** tried);
      }
    }
  }

  async #call(method, path, body) {
    const headers = { Authorization: `Bearer ${this.#key}`, ...(body && { "Content-Type": "application/json" }) };
    const options = { method, headers, body: body && JSON.stringify(body), credentials: "omit", redirect: "error", cache: "no-store" };
    const answer = await fetch(this.url + path, options).catch(() => {
      throw new CallError("The endpoint cannot be reached.");
    });
    const json = await answer.json().catch(() => null);
    if (!answer.ok) throw new CallError(explain(answer.status, json), answer.status);
    return json;
  }
}

export const pause = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));

function explain(status, json) {
  const { detail, error } = asObject(json);
  const said = asText(error ?? detail, 500);
  if (status === 401 || status === 403) return `The key is not accepted${said ? `: ${said}` : "."}`;
  if (status === 404) return `There is no such endpoint or job${said ? `: ${said}` : "."}`;
  if (status === 413) return "The request is too large; use smaller pictures.";
  return `The endpoint answered ${status}${said ? `: ${said}` : "."}`;
}
