// RunPod's JavaScript SDK: one picture, waited for and saved; and how errors come.
import { writeFileSync } from "node:fs";
import runpodSdk from "runpod-sdk";

const { RUNPOD_ENDPOINT_BASE_URL, RUNPOD_ENDPOINT_ID, RUNPOD_API_KEY } = process.env;
const runpod = runpodSdk(RUNPOD_API_KEY, { baseUrl: RUNPOD_ENDPOINT_BASE_URL ?? "https://api.runpod.ai/v2" });
const endpoint = runpod.endpoint(RUNPOD_ENDPOINT_ID);

const result = await endpoint.runSync({ input: { prompt: "a big blue star on a yellow background", seed: 42 } }, 600_000);
if (!result.succeeded) {
  throw new Error(`${result.status}: ${result.error}`);
}
const picture = await fetch(result.output.images[0]); // a data URI, or a URL in a bucket: it opens both
writeFileSync("star.png", Buffer.from(await picture.arrayBuffer()));
console.log(`star.png: ${result.output.width}x${result.output.height}, seed ${result.output.seed}`);

const refused = await endpoint.runSync({ input: { prompt: "a star", width: "wide" } });
console.log(`${refused.status}: ${refused.output.code}: ${refused.output.message}`);
