// The request that a picture of this worker carries: in a PNG's text, or the EXIF comment of a JPEG or WEBP.

import { asList, asObject, asText } from "./untrusted.js";

const RECIPE = ", Recipe: ";
const NEGATIVE = "\nNegative prompt: ";
const MAX_CHUNKS = 500;
const MAX_TEXT_BYTES = 1_000_000; // of what a picture carries
const ascii = (bytes) => new TextDecoder("latin1").decode(bytes);

/** {model, fields, needs} of a picture's bytes, or null where there is none. */
export function readRecipe(bytes) {
  try {
    return parse(readText(bytes));
  } catch {
    return null;
  }
}

function parse(text) {
  const recipe = asObject(JSON.parse(JSON.parse(text.slice(text.lastIndexOf(RECIPE) + RECIPE.length))));
  const letters = Array.from(text); // their number is that of Unicode's characters
  const fields = { ...asObject(recipe.fields), prompt: letters.slice(0, recipe.prompt).join("") };
  if (typeof recipe.negative_prompt === "number") {
    const start = recipe.prompt + NEGATIVE.length;
    fields.negative_prompt = letters.slice(start, start + recipe.negative_prompt).join("");
  }
  return { model: asText(recipe.model, 300), fields, needs: asList(recipe.needs, 10).map((one) => asText(one, 40)) };
}

function readText(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[0] === 0x89) return readPng(bytes, view);
  if (bytes[0] === 0xff) return readJpeg(bytes, view);
  if (ascii(bytes.subarray(0, 4)) === "RIFF") return readWebp(bytes, view);
  return "";
}

function readPng(bytes, view) {
  for (let at = 8, chunks = 0; at + 12 <= bytes.length && chunks < MAX_CHUNKS; chunks += 1) {
    const [length, kind] = [view.getUint32(at), ascii(bytes.subarray(at + 4, at + 8))];
    const data = bytes.subarray(at + 8, at + 8 + Math.min(length, MAX_TEXT_BYTES));
    const [latin, unicode] = ["parameters\0", "parameters\0\0\0\0\0"];
    if (kind === "tEXt" && ascii(data.subarray(0, latin.length)) === latin) return readLatin(data.subarray(latin.length));
    if (kind === "iTXt" && ascii(data.subarray(0, unicode.length)) === unicode) return new TextDecoder().decode(data.subarray(unicode.length));
    at += 12 + length;
  }
  return "";
}

// What the platform calls latin1 is windows-1252, which differs in 27 letters.
const readLatin = (bytes) => Array.from(bytes, (code) => String.fromCharCode(code)).join("");

function readJpeg(bytes, view) {
  for (let at = 2, parts = 0; at + 4 <= bytes.length && bytes[at] === 0xff && parts < MAX_CHUNKS; parts += 1) {
    const [marker, length] = [bytes[at + 1], view.getUint16(at + 2)];
    const data = bytes.subarray(at + 4, at + 2 + length);
    if (marker === 0xe1 && ascii(data.subarray(0, 6)) === "Exif\0\0") return readComment(data.subarray(6));
    if (marker === 0xda) break;
    at += 2 + length;
  }
  return "";
}

function readWebp(bytes, view) {
  for (let at = 12, chunks = 0; at + 8 <= bytes.length && chunks < MAX_CHUNKS; chunks += 1) {
    const length = view.getUint32(at + 4, true);
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (ascii(bytes.subarray(at, at + 4)) === "EXIF") return readComment(ascii(data.subarray(0, 6)) === "Exif\0\0" ? data.subarray(6) : data);
    at += 8 + length + (length % 2);
  }
  return "";
}

/** EXIF's UserComment, which the worker writes as UTF-16 in big-endian order. */
function readComment(tiff) {
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  const little = ascii(tiff.subarray(0, 2)) === "II";
  const entry = (folder, wanted) => {
    for (let at = folder + 2, left = view.getUint16(folder, little); left > 0; left -= 1, at += 12) {
      if (view.getUint16(at, little) === wanted) return { count: view.getUint32(at + 4, little), value: view.getUint32(at + 8, little) };
    }
    return null;
  };
  const exif = entry(view.getUint32(4, little), 0x8769);
  const comment = exif && entry(exif.value, 0x9286);
  if (!comment || comment.count > MAX_TEXT_BYTES) return "";
  const data = tiff.subarray(comment.value + 8, comment.value + comment.count);
  return new TextDecoder("utf-16be").decode(data);
}
