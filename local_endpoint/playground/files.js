// Picture files of the user: read, checked and, where they are too large for a request, made smaller.

import { isPicture } from "./untrusted.js";

const MAX_FILE_BYTES = 3_000_000; // of a picture that is sent as it is: RunPod's requests have 10 MB, in base64
const MAX_SIDE = 2_048;

/** A file as bytes. Raises an Error with a sentence for people if it is no picture. */
export async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const bitmap = String.fromCharCode(...bytes.slice(0, 2)) === "BM";
  if (!isPicture(bytes) && !bitmap) throw new Error(`${file.name || "This"} is no picture that can be read; PNG, JPEG, WEBP, GIF, AVIF and BMP can.`);
  return bytes;
}

/** A picture file as a data URI, with its size in pixels. */
export async function loadPicture(file) {
  await readFile(file);
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name || "The picture"} is damaged.`);
  });
  const { width, height } = bitmap;
  if (file.size <= MAX_FILE_BYTES && file.type !== "image/bmp") return { uri: await toDataUri(file), width, height };
  return shrink(bitmap);
}

async function shrink(bitmap) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  return { uri: canvas.toDataURL("image/webp", 0.95), width, height };
}

/** A file or blob as a data URI. */
export function toDataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = Object.assign(new FileReader(), { onload: () => resolve(reader.result), onerror: () => reject(reader.error) });
    reader.readAsDataURL(blob);
  });
}
