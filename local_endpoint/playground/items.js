// A picture with what belongs to it: from a job's answer, as the gallery keeps it, and as an element.

import { make } from "./dom.js";
import { asList, asNumber, asText, readPicture } from "./untrusted.js";
import { shortenPictures } from "./snippets.js";

const MAX_PICTURES = 64; // of one answer
const MAX_PROMPT_CHARS = 20_000; // of a worker's 5,000 some count twice here
const addresses = new WeakMap(); // blob -> its address in this page

/** The pictures of a job that is over; what is none is left out. */
export function readItems(job) {
  const { output, input } = job;
  const [seeds, prompts] = [asList(output.seeds, MAX_PICTURES), [input.prompt].flat()];
  const sources = asList(output.images, MAX_PICTURES);
  return sources.flatMap((source, at) => {
    const picture = readPicture(source);
    if (!picture) return [];
    const prompt = asText(prompts[Math.floor((at * prompts.length) / sources.length)], MAX_PROMPT_CHARS);
    return [{ ...picture, time: Date.now(), input: shortenPictures(input), prompt, seed: asNumber(seeds[at]) ?? asNumber(output.seed), model: asText(output.model, 200), width: asNumber(output.width), height: asNumber(output.height), scheduler: asText(output.scheduler, 100), steps: asNumber(output.steps), seconds: job.seconds }];
  });
}

/** Where the page finds a picture. */
export function addressOf({ blob, url }) {
  if (!blob) return url;
  if (!addresses.has(blob)) addresses.set(blob, URL.createObjectURL(blob));
  return addresses.get(blob);
}

/** To be called when a picture is kept no more: its address holds its memory. One that can be saved yet stays. */
export function releaseAddress({ blob }) {
  const address = addresses.get(blob);
  if (!address || document.querySelector(`a[href="${address}"]`)) return;
  URL.revokeObjectURL(address);
  addresses.delete(blob);
}

/** A picture as an <img>; one that cannot be shown says so. */
export function makeImage(item, alt = item.prompt || "A picture without a prompt") {
  const image = make("img", { alt, src: addressOf(item), referrerpolicy: "no-referrer", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(make("p", { class: "broken" }, "This picture cannot be shown. A link to a bucket may be over.")));
  return image;
}

/** A file name for a picture. */
export function fileName(item) {
  const kind = item.blob?.type.split("/")[1] ?? "png";
  return `picture-${item.seed ?? item.time}.${kind}`;
}

/** What a request for the same picture holds; pictures that it was made from are not kept. */
export function fieldsOf(item) {
  const kept = Object.entries(item.input ?? {}).filter(([, value]) => !JSON.stringify(value ?? null).includes("<a picture: "));
  return { ...Object.fromEntries(kept), prompt: item.prompt, ...(item.seed !== undefined && { seed: item.seed }) };
}
