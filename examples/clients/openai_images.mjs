// OpenAI's JavaScript client: a picture is drawn, and then edited by a request in JSON.
import { writeFileSync } from "node:fs";
import OpenAI from "openai";

const { RUNPOD_ENDPOINT_BASE_URL, RUNPOD_ENDPOINT_ID, RUNPOD_API_KEY } = process.env;
const base = RUNPOD_ENDPOINT_BASE_URL ?? "https://api.runpod.ai/v2";
const client = new OpenAI({ apiKey: RUNPOD_API_KEY, baseURL: `${base}/${RUNPOD_ENDPOINT_ID}/openai/v1`, timeout: 600_000 });

const drawn = await client.images.generate({
  prompt: "a big blue star on a yellow background",
  size: "256x256",
  seed: 42, // any field of the worker's own
});
const picture = drawn.data[0].b64_json;
writeFileSync("star.png", Buffer.from(picture, "base64"));

const edited = await client.post("/images/edits", {
  body: {
    prompt: "a big red star on a yellow background",
    images: [{ image_url: `data:image/png;base64,${picture}` }],
    strength: 0.9,
    seed: 42,
  },
});
writeFileSync("red-star.png", Buffer.from(edited.data[0].b64_json, "base64"));
console.log("star.png, red-star.png");
