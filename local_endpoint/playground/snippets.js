// A request as others would send it. The key is never in it: each reads RUNPOD_API_KEY from its environment.

const MAX_CHARS = 300; // of a picture in a snippet; longer ones are a placeholder

export const LANGUAGES = { curl, Python: python, JavaScript: javascript, JSON: json };

/** What a call needs that waits for its answer, which shows no previews; without the megabytes of pictures. */
function toSend({ preview, ...input }) {
  return shortenPictures(input);
}

function json(endpoint, input) {
  return JSON.stringify({ input }, null, 2);
}

function curl(endpoint, input) {
  const body = JSON.stringify({ input: toSend(input) }, null, 2).replaceAll("'", "'\\''");
  return [`curl -X POST ${endpoint.url}/runsync \\`, `  -H "Authorization: Bearer $RUNPOD_API_KEY" \\`, `  -H 'Content-Type: application/json' \\`, `  -d '${body}'`].join("\n");
}

function python(endpoint, input) {
  return `import os

import requests

answer = requests.post(
    ${JSON.stringify(`${endpoint.url}/runsync`)},
    headers={"Authorization": f"Bearer {os.environ['RUNPOD_API_KEY']}"},
    json={"input": ${toPython(toSend(input), "    ")}},
    timeout=600,
)
answer.raise_for_status()
print(answer.json())
`;
}

function javascript(endpoint, input) {
  const body = JSON.stringify({ input: toSend(input) }, null, 2).replaceAll("\n", "\n  ");
  return `const answer = await fetch(${JSON.stringify(`${endpoint.url}/runsync`)}, {
  method: "POST",
  headers: { Authorization: \`Bearer \${process.env.RUNPOD_API_KEY}\`, "Content-Type": "application/json" },
  body: JSON.stringify(${body}),
});
console.log(await answer.json());
`;
}

/** Pictures are megabytes, which no shell takes; a placeholder says what belongs there. */
export function shortenPictures(value) {
  if (Array.isArray(value)) return value.map(shortenPictures);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, shortenPictures(one)]));
  const long = typeof value === "string" && value.startsWith("data:") && value.length > MAX_CHARS;
  return long ? `<a picture: URL, or ${value.slice(0, value.indexOf(",") + 1)}...>` : value;
}

function toPython(value, indent) {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map((one) => toPython(one, indent)).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const lines = Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${toPython(one, inner)},`);
  return `{\n${lines.join("\n")}\n${indent}}`;
}
