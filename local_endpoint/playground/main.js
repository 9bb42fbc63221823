// Puts the parts together: an endpoint, its form, the jobs, the stage and the gallery.

import { announce, announceIn } from "./announce.js";
import { spread } from "./batch.js";
import { askCapabilities, PLAIN, recallCapabilities } from "./capabilities.js";
import { wireCompare } from "./compare.js";
import { wireConnection } from "./connection.js";
import { find, openDialog } from "./dom.js";
import { wireDropped } from "./dropped.js";
import { toDataUri } from "./files.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { GalleryStore } from "./gallery_store.js";
import { fieldsOf, readItems } from "./items.js";
import { wireMask } from "./mask_field.js";
import { wireDrop } from "./picture_slot.js";
import { Queue } from "./queue.js";
import { QueueList } from "./queue_list.js";
import { wireSnippets } from "./snippet_dialog.js";
import { wireTheme } from "./theme.js";
import { noteUnfinished, recallUnfinished } from "./unfinished.js";
import { asText } from "./untrusted.js";
import { sayState, Viewer } from "./viewer.js";

let endpoint = null;
let form = null;

announceIn(find("#news"));
wireTheme(find("#theme"));
const has = (name) => Boolean(form?.widgets.has(name));
const errors = find("#form-error");

const viewer = new Viewer(find("#stage"), [
  { text: "Use seed", fits: (item) => item.seed !== undefined && has("seed"), run: (item) => (form.widgets.get("seed").write(item.seed), announce("The seed is locked")) },
  { text: "Use parameters", fits: () => form !== null, run: (item) => restore(fieldsOf(item)) },
  { text: "Start from it", fits: () => has("image"), run: (item) => startFrom(item) },
  { text: "Edit it", fits: () => has("images"), run: async (item) => edit(await uriOf(item)) },
]);
const queueList = new QueueList(find("#queue"), { onshow: (job) => viewer.showJob(job), oncancel: (job) => queue.cancel(job) });
const compare = wireCompare(find("#compare-dialog"));
const gallery = new Gallery(find("#gallery"), await new GalleryStore().open(), { onopen: open, oncompare: compare });
const queue = new Queue(follow);
const mask = wireMask(find("#mask-dialog"));
const snippets = wireSnippets(find("#snippet-dialog"), () => ({ endpoint, input: form?.read() ?? {} }));
await gallery.show();

function open(item) {
  viewer.showItems([item]);
  find("#stage").focus();
}

const uriOf = async (item) => (item.blob ? toDataUri(item.blob) : item.url);

async function startFrom(item) {
  setPicture("image", await uriOf(item));
}

function setPicture(name, value) {
  const widget = form.widgets.get(name);
  widget.write(value);
  const section = widget.element.closest("details");
  section.open = true;
  section.scrollIntoView({ block: "nearest" });
  announce("The picture is in the form");
}

function edit(uri) {
  setPicture("images", [...(form.widgets.get("images").read() ?? []), uri]);
}

function restore(fields, needs = []) {
  const unknown = form.write(fields).filter((name) => name !== "replay");
  const left = unknown.length ? ` This model does not take ${asText(unknown.join(", "), 500)}.` : "";
  const missing = needs.length ? ` It was made from other pictures: give ${needs.join(", ")} again.` : "";
  errors.textContent = `${left}${missing}`.trim();
  announce(`Parameters are restored.${left}${missing}`);
  find("#draw").focus();
}

/** Hears of every change of a job. */
async function follow(job) {
  if (job.isOver && !job.followed) {
    job.followed = true;
    await end(job);
  }
  noteUnfinished(queue.jobs);
  queueList.update(job);
  viewer.update(job);
  announce(`Job ${job.number}: ${sayState(job)}${job.state === "IN_PROGRESS" ? `, ${Math.round(job.progress.percent)} %` : ""}`);
}

async function end(job) {
  for (const item of readItems(job).reverse()) job.items.unshift(await gallery.add(item));
  const seed = job.items[0]?.seed;
  if (seed !== undefined) form?.widgets.get("seed")?.note?.(seed);
  if (job.state !== "FAILED") return;
  const elsewhere = job.problems.length && form ? form.explain(job.problems) : [];
  errors.textContent = [...elsewhere.map(({ field, problem }) => `${field}: ${problem}`), job.problems.length ? "" : job.error].filter(Boolean).join("\n");
  if (job.status === 401 || job.status === 403) connection.explain(job.error);
}

function draw() {
  if (!form || !endpoint) return openDialog(find("#connection-dialog"));
  form.explain([]);
  errors.textContent = "";
  try {
    const batch = spread(form.read(), find("#lines").checked, find("#seeds").value);
    queue.tidy();
    const jobs = queue.add(batch.inputs, endpoint);
    if (jobs.length > 1) viewer.showBatch({ ...batch, jobs });
    else viewer.showJob(jobs[0]);
    if (matchMedia("(max-width: 52rem)").matches) find("#stage").scrollIntoView({ block: "start" });
  } catch (error) {
    errors.textContent = error.message;
    announce(error.message);
  }
}

async function connect(chosen, asked) {
  endpoint = chosen;
  const known = recallCapabilities(chosen);
  if (known) use(known);
  goOn(chosen);
  if (known && !asked && !chosen.local) return say(`${known.model}, as it was told the last time`);
  const sayHere = (text) => (say(text), connection.tell(text));
  sayHere("Asking what the model can do…");
  try {
    const told = await askCapabilities(chosen, (job) => sayHere(job.status === "IN_QUEUE" ? "Waiting for a worker to start…" : "Asking…"));
    if (endpoint !== chosen) return;
    use(told);
    connection.tell("");
    find("#connection-dialog").close();
  } catch (error) {
    if (endpoint !== chosen) return;
    connection.explain(error.message);
    say(`Not connected: ${error.message}`);
    if ([401, 403, 404].includes(error.status)) return openDialog(find("#connection-dialog"));
    if (!form) use(PLAIN, error.message);
  }
}

/** Follows the jobs again that were not over when the page was left. */
function goOn(chosen) {
  if (queue.jobs.length) return;
  const jobs = queue.resume(recallUnfinished(chosen), chosen);
  if (!jobs.length) return;
  viewer.showJob(jobs[0]);
  announce(jobs.length === 1 ? "A job goes on" : `${jobs.length} jobs go on`);
}

function use(capabilities, reason = "") {
  const before = form?.read() ?? {};
  form = new Form(find("#sections"), find("#prompts"), capabilities, () => {
    const task = form?.task();
    find("#task").textContent = task && task.name !== "text to image" ? task.name : "";
    mask.refresh(form);
  });
  if (Object.keys(before).length) form.write(before);
  mask.refresh(form);
  find("#draw").disabled = false;
  say(reason || `${capabilities.model}${capabilities.title ? ` · ${capabilities.title}` : ""}`);
}

function say(text) {
  find("#model").textContent = text;
  announce(text);
}

const connection = wireConnection(find("#connection-form"), connect);
find("#connect").addEventListener("click", () => openDialog(find("#connection-dialog")));
find("#connection-close").addEventListener("click", () => find("#connection-dialog").close());
find("#copy").addEventListener("click", snippets);
find("#draw-form").addEventListener("submit", (event) => (event.preventDefault(), draw()));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || find("dialog[open]")) return;
  event.preventDefault();
  if (!event.repeat) draw(); // a key that is held down is pressed once
});
find("#cancel-all").addEventListener("click", () => queue.jobs.forEach((job) => queue.cancel(job)));

const take = wireDropped(find("#dropped-dialog"), {
  start: (uri) => setPicture("image", uri),
  edit,
  replay: ({ fields, needs }) => restore(fields, needs),
  fits: has,
});
const takeSafely = (file) => (form ? take(file).catch((error) => ((errors.textContent = error.message), announce(error.message))) : openDialog(find("#connection-dialog")));
wireDrop(document.body, takeSafely);
const opened = find("#open-file");
find("#open").addEventListener("click", () => opened.click());
opened.addEventListener("change", () => opened.files[0] && takeSafely(opened.files[0]).finally(() => (opened.value = "")));

connection.start();
document.documentElement.dataset.ready = "true";
