// What a worker answers may be anything. It becomes text, numbers and pictures here, or nothing.

const DATA_PICTURE = /^data:(image\/(?:png|jpeg|webp|gif|avif));base64,/i;
const MAX_PICTURE_CHARS = 40_000_000;
const MAX_URL_CHARS = 4_000;
const MAX_SHOWN_CHARS = 20_000;

export const asObject = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
export const asList = (value, max = 100) => (Array.isArray(value) ? value.slice(0, max) : []);
export const asNumber = (value) => (typeof value === "number" && Number.isFinite(value) ? value : undefined);

/** A value as text of bounded length. */
export function asText(value, max = 2_000) {
  if (value === undefined || value === null) return "";
  const text = typeof value === "string" ? value : shorten(value);
  return text.length > max ? `${text.slice(0, max)}…` : text;
}

/** A value as indented JSON, its long strings cut, so that an answer with pictures can be read. */
export function shorten(value) {
  const cut = (_, one) => (typeof one === "string" && one.length > 200 ? `${one.slice(0, 60)}… (${one.length} characters)` : one);
  const text = write(value, cut);
  return text.length > MAX_SHOWN_CHARS ? `${text.slice(0, MAX_SHOWN_CHARS)}…` : text;
}

function write(value, cut) {
  try {
    return JSON.stringify(value, cut, 2) ?? "";
  } catch {
    return "(nested too deep to be shown)";
  }
}

/** A picture in an answer: {blob} of a data URI, {url} at a host, or null for all else. */
export function readPicture(source) {
  if (typeof source !== "string" || source.length > MAX_PICTURE_CHARS) return null;
  const found = DATA_PICTURE.exec(source);
  if (found) {
    const blob = decode(source.slice(found[0].length), found[1].toLowerCase());
    return blob && { blob };
  }
  return isWebAddress(source) ? { url: source } : null;
}

function decode(base64, type) {
  try {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return isPicture(bytes) ? new Blob([bytes], { type }) : null;
  } catch {
    return null;
  }
}

/** Whether bytes begin as PNG, JPEG, GIF, WEBP or AVIF files do. */
export function isPicture(bytes) {
  const head = String.fromCharCode(...bytes.slice(0, 12));
  return /^(\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8|RIFF[^]{4}WEBP|[^]{4}ftyp(?:avif|avis|mif1))/.test(head);
}

function isWebAddress(text) {
  if (text.length > MAX_URL_CHARS || !/^https?:\/\//i.test(text)) return false;
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}

/** The problems that a worker tells, field by field. */
export function readProblems(output) {
  return asList(asObject(output).fields).map((one) => {
    const { field, problem } = asObject(one);
    return { field: asText(field, 200), problem: asText(problem) };
  });
}

/** What a progress update says. */
export function readProgress(output) {
  const { step, total, percent, seconds_left: seconds, preview } = asObject(output);
  return {
    step: asNumber(step),
    total: asNumber(total),
    percent: Math.min(100, Math.max(0, asNumber(percent) ?? 0)),
    secondsLeft: asNumber(seconds),
    preview: readPicture(preview)?.blob ?? null,
  };
}
