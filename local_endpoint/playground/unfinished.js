// Jobs that are not over when the page is left: noted in this tab, and followed again when the page comes back.

import { shortenPictures } from "./snippets.js";
import { keepText, recallText, TAB } from "./storage.js";
import { asList, asObject, asText } from "./untrusted.js";

const KEPT = "playground-unfinished";
const MAX_JOBS = 500;

/** Notes which jobs are not over. One that is not sent yet, and holds pictures, is too large to be noted. */
export function noteUnfinished(jobs) {
  const open = jobs.filter((job) => !job.isOver).map((job) => ({ url: job.endpoint.url, id: job.id, input: shortenPictures(job.input), job }));
  const notes = open.filter(({ id, input, job }) => id || JSON.stringify(input) === JSON.stringify(job.input));
  keepText(TAB, KEPT, JSON.stringify(notes.map(({ url, id, input }) => ({ url, id, input }))));
}

/** The jobs of this endpoint that were noted: {id, input}, without an id where they are not sent yet. */
export function recallUnfinished(endpoint) {
  try {
    const notes = asList(JSON.parse(recallText(TAB, KEPT)), MAX_JOBS).map(asObject);
    return notes.filter(({ url }) => url === endpoint.url).map(({ id, input }) => ({ id: asText(id, 200) || null, input: asObject(input) }));
  } catch {
    return [];
  }
}
