// Many jobs from one form: a prompt a line, and a list of seeds; every prompt with every seed.

const MAX_JOBS = 64;
const MAX_SEED = 2 ** 32 - 1;

/** The seeds in "1, 2, 5-8". Raises an Error with a sentence for people. */
export function readSeeds(text) {
  const seeds = text.split(/[\s,;]+/).filter(Boolean).flatMap(readRange);
  if (seeds.length > MAX_JOBS) throw new Error(`${seeds.length} seeds; ${MAX_JOBS} at most.`);
  return seeds;
}

function readRange(part) {
  const found = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(part);
  const [first, last] = found ? [Number(found[1]), Number(found[2] ?? found[1])] : [1, 0];
  if (first > last || last > MAX_SEED) throw new Error(`“${part.slice(0, 40)}” is no seed and no range such as 5-8.`);
  if (last - first >= MAX_JOBS) throw new Error(`${part} are ${last - first + 1} seeds; ${MAX_JOBS} at most.`);
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

/**
 * The inputs of a batch, prompt by prompt, with the names of its rows and columns. Raises an Error for too many.
 * @param {object} input of the form
 * @param {boolean} lines whether each line of its prompt is one
 * @param {string} seedText seeds; empty for the form's own
 */
export function spread(input, lines, seedText) {
  const written = String(input.prompt ?? "");
  const prompts = lines ? written.split("\n").map((line) => line.trim()).filter(Boolean) : [written];
  const seeds = readSeeds(seedText);
  const columns = seeds.length ? seeds : [input.seed];
  if (!prompts.length) throw new Error("There is no line with a prompt.");
  if (prompts.length * columns.length > MAX_JOBS) throw new Error(`${prompts.length} prompts × ${columns.length} seeds are too many; ${MAX_JOBS} pictures at most.`);
  const inputs = prompts.flatMap((prompt) => columns.map((seed) => clean({ ...input, prompt, seed })));
  return { inputs, rows: prompts, columns: columns.map((seed) => (seed === undefined ? "random seed" : `seed ${seed}`)) };
}

const clean = (input) => Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
