// What an endpoint's model can do: asked by a job that draws nothing, kept in this browser for the next time.

import { limitSide } from "./sizes.js";
import { BROWSER, keepText, recallText } from "./storage.js";
import { asList, asNumber, asObject, asText } from "./untrusted.js";

const KEPT = "playground-capabilities ";
const MAX_KEPT_CHARS = 500_000;
const MAX_FIELDS = 100;
const MAX_PARTS = 20;
const MAX_DEPTH = 3; // of parts in parts
// What the page itself fills in or looks at holds this, whatever is told.
const KNOWN = new Map([
  ["prompt", { type: "string" }],
  ["image", { type: "picture", many: false }],
  ["images", { type: "picture", many: true }],
  ["mask", { type: "picture", many: false }],
  ["width", { type: "integer" }],
  ["height", { type: "integer" }],
]);

/** Asks the endpoint. Raises an Error that says why there is no answer. */
export async function askCapabilities(endpoint, onStatus) {
  const job = await endpoint.runToEnd({ capabilities: true }, onStatus);
  const told = asObject(asObject(job.output).capabilities);
  if (!asList(told.fields).length) throw new Error(asText(job.error, 500) || "The worker does not say what its model can do.");
  keep(endpoint, told);
  return complete(told);
}

/** What the endpoint said the last time, or null. */
export function recallCapabilities(endpoint) {
  try {
    const known = complete(asObject(JSON.parse(recallText(BROWSER, KEPT + endpoint.url))));
    return known.fields.length ? known : null;
  } catch {
    return null;
  }
}

function keep(endpoint, told) {
  try {
    const text = JSON.stringify(told);
    if (text.length <= MAX_KEPT_CHARS) keepText(BROWSER, KEPT + endpoint.url, text);
  } catch {
    // It is nested deeper than can be written; the next visit asks again.
  }
}

/** The answer with the types that the page relies on, and what is offered by name as choices of the fields. */
export function complete(told) {
  const schedulers = asList(told.schedulers, 500).map(asObject);
  const controlnets = asList(told.controlnets).map(asObject);
  const names = new Map([["loras", asList(told.loras, 5_000)], ["controlnet", controlnets.map((one) => one.name)]]);
  const modes = [...new Set(controlnets.flatMap((one) => Object.keys(asObject(one.modes))))];
  const limits = asObject(told.limits);
  const size = readSize(asObject(told.size));
  const fields = asList(told.fields, MAX_FIELDS).map((field) => limitSide(readField(field, names, modes), size));
  return {
    model: asText(told.model, 200),
    title: asText(told.family_title, 200),
    version: asText(told.version, 40),
    fields: fields.filter(isUsable),
    tasks: asList(told.tasks, 20).map(readTask),
    schedulers,
    size,
    references: asNumber(limits.references) ?? 0,
    previews: told.previews === true,
  };
}

function readSize({ width, height, step, max_pixels: maxPixels }) {
  return { width: asNumber(width), height: asNumber(height), step: asNumber(step) ?? 8, maxPixels: asNumber(maxPixels) ?? Infinity };
}

function readField(given, names, modes) {
  const field = readNamed(given);
  const parts = field.parts.map((part) => readPart(part, names.get(field.name), modes));
  return { ...field, ...KNOWN.get(field.name), parts: parts.filter(isUsable) };
}

function readNamed(given, depth = 0) {
  const field = asObject(given);
  const parts = depth < MAX_DEPTH ? asList(field.parts, MAX_PARTS).map((part) => readNamed(part, depth + 1)) : [];
  return { ...field, name: asText(field.name, 60), type: asText(field.type, 20), parts: depth ? parts.filter(isUsable) : parts };
}

const isUsable = (field) => Boolean(field?.name && field.type);

function readPart(part, names, modes) {
  if (part.name === "name" && names?.length) return { ...part, choices: names };
  if (part.name === "mode") return modes.length ? { ...part, choices: modes, type: "string" } : null;
  return part.name === "image" ? { ...part, type: "picture" } : part;
}

function readTask(given) {
  const { name, needs, refuses, strength } = asObject(given);
  return { name: asText(name, 60), needs: asList(needs, 5), refuses: asList(refuses, 20), strength: asNumber(strength) };
}

/** For a worker that does not say: the fields that any takes. */
export const PLAIN = complete({
  model: "a model that does not say what it can do",
  fields: [
    { name: "prompt", type: "string", required: true },
    { name: "negative_prompt", type: "string" },
    { name: "width", type: "integer", minimum: 64, maximum: 8192, step: 8 },
    { name: "height", type: "integer", minimum: 64, maximum: 8192, step: 8 },
    { name: "num_inference_steps", type: "integer", minimum: 1, maximum: 500 },
    { name: "guidance_scale", type: "number", minimum: 0, maximum: 50 },
    { name: "seed", type: "integer" },
  ],
});
