// A field that takes a picture: chosen, dropped, pasted, or named by a URL or a path on the volume.

import { announce } from "./announce.js";
import { button, make, newId } from "./dom.js";
import { loadPicture } from "./files.js";
import { showProblem } from "./problems.js";
import { asText } from "./untrusted.js";

/** A widget whose value is a data URI, or what was typed. */
export function makePictureSlot(field, onchange, label) {
  let uri = null;
  const image = make("img", { alt: `${label}, as chosen`, hidden: true });
  const file = make("input", { type: "file", accept: "image/*", hidden: true, tabindex: "-1", "aria-label": `${label}: file` });
  const problem = make("p", { id: newId("problem"), class: "problem", hidden: true });
  const address = make("input", { id: newId(field.name), placeholder: "or a URL, or volume:path", autocomplete: "off", spellcheck: "false", "aria-describedby": problem.id, "aria-label": `${label}: URL or path` });
  const choose = button("Choose a file", () => file.click(), { class: "choose" });
  const remove = button("Remove", () => (set(null), choose.focus()), { hidden: true, class: "quiet" });
  const tools = make("div", { class: "tools" }, choose, remove);
  const element = make("div", { class: "field wide slot", role: "group", "aria-label": label, title: asText(field.meaning), "data-field": field.name }, make("span", { class: "slot-label", "aria-hidden": "true" }, label), image, tools, address, file, problem);

  function set(value) {
    uri = value?.startsWith("data:") ? value : null;
    address.value = uri ? "" : (value ?? "");
    image.hidden = !uri;
    if (uri) image.src = uri;
    else image.removeAttribute("src");
    remove.hidden = !uri && !address.value;
    address.hidden = Boolean(uri);
    showProblem(address, problem, "");
    onchange();
  }

  async function take(one) {
    try {
      set((await loadPicture(one)).uri);
      announce(`${label} is set`);
    } catch (error) {
      showProblem(address, problem, error.message);
    }
  }

  file.addEventListener("change", () => file.files[0] && take(file.files[0]).finally(() => (file.value = "")));
  address.addEventListener("input", () => ((remove.hidden = !address.value), onchange()));
  wireDrop(element, take);
  const read = () => uri ?? (address.value.trim() || undefined);
  return { element, control: choose, tools, read, write: (value) => set(value === undefined ? null : asText(value, 40_000_000)), take, explain: (text) => showProblem(uri ? choose : address, problem, text) };
}

/** Has an element take what is dropped on it or pasted into it. */
export function wireDrop(element, take) {
  element.addEventListener("dragover", (event) => (event.preventDefault(), element.classList.add("over")));
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("over");
    const [dropped] = event.dataTransfer.files;
    if (!dropped) return;
    event.preventDefault();
    event.stopPropagation();
    take(dropped);
  });
  element.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData.files;
    if (pasted) (event.preventDefault(), event.stopPropagation(), take(pasted));
  });
}
