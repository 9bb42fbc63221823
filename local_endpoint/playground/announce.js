// Tells people who do not see the page what happens, at most once a second, the latest news alone.

const INTERVAL_MS = 1_000;
let region = null;
let waiting = null;
let timer = null;

/** Names the live region, of role "status". */
export function announceIn(element) {
  region = element;
}

/** Says a sentence, now or when a second has passed since the last. */
export function announce(sentence) {
  waiting = sentence;
  if (!timer) speak();
}

function speak() {
  timer = null;
  if (waiting === null || !region) return;
  region.textContent = waiting;
  waiting = null;
  timer = setTimeout(speak, INTERVAL_MS);
}
