// The gallery: what was drawn in this browser, also before the page was loaded anew.

import { announce } from "./announce.js";
import { button, find, make, openDialog } from "./dom.js";
import { makeImage, releaseAddress } from "./items.js";

export class Gallery {
  /** @param {Function} onopen called with the picture that is chosen; `oncompare` with two. */
  constructor(section, store, { onopen, oncompare }) {
    this.section = section;
    this.store = store;
    this.onopen = onopen;
    this.picked = [];
    this.items = new Map(); // entry -> its picture
    this.list = find("ul", section);
    this.compare = find("#compare", section);
    this.compare.addEventListener("click", () => oncompare(this.picked));
    const dialog = find("#clear-dialog");
    find("#clear", section).addEventListener("click", () => openDialog(dialog));
    find("#clear-yes").addEventListener("click", () => (dialog.close(), this.clear()));
    find("#clear-no").addEventListener("click", () => dialog.close());
  }

  async show() {
    [...this.list.children].forEach((entry) => this.#drop(entry));
    this.list.append(...(await this.store.list()).map((item) => this.#makeEntry(item)));
    this.#count();
  }

  /** Keeps a picture, which is returned, and shows it first. */
  async add(item) {
    const kept = await this.store.add(item);
    this.list.prepend(this.#makeEntry(kept));
    const left = new Set((await this.store.list()).map(({ id }) => String(id)));
    [...this.list.children].filter((entry) => !left.has(entry.dataset.id)).forEach((entry) => this.#drop(entry));
    this.#count();
    return kept;
  }

  async clear() {
    await this.store.clear();
    this.picked = [];
    await this.show();
    announce("The gallery is empty");
  }

  #makeEntry(item) {
    const name = `${item.prompt.slice(0, 80) || "without a prompt"}, seed ${item.seed ?? "unknown"}`;
    const open = make("button", { type: "button", class: "thumb", "aria-label": `Show ${name}`, onclick: () => this.onopen(item) }, makeImage(item, ""));
    const pick = make("input", { type: "checkbox", "aria-label": `Compare ${name}`, onchange: () => this.#pick(item, pick) });
    const remove = button("×", () => this.#remove(item, entry), { class: "quiet", "aria-label": `Remove ${name}` });
    const entry = make("li", { "data-id": item.id }, open, make("div", { class: "entry-tools" }, make("label", {}, pick, make("span", { "aria-hidden": "true" }, "Compare")), remove));
    this.items.set(entry, item);
    return entry;
  }

  #drop(entry) {
    releaseAddress(this.items.get(entry));
    this.items.delete(entry);
    entry.remove();
  }

  #pick(item, box) {
    this.picked = this.picked.filter((one) => one.id !== item.id);
    if (box.checked) this.picked.push(item);
    if (this.picked.length > 2) {
      const { id } = this.picked.shift();
      find(`[data-id="${CSS.escape(id)}"] input`, this.list).checked = false;
    }
    this.#count();
  }

  async #remove(item, entry) {
    await this.store.remove(item.id);
    this.picked = this.picked.filter((one) => one.id !== item.id);
    const next = entry.nextElementSibling ?? entry.previousElementSibling;
    this.#drop(entry);
    this.#count();
    (next ? find("button", next) : find("#draw")).focus();
  }

  #count() {
    const many = this.list.children.length;
    find("#gallery-empty", this.section).hidden = many > 0;
    find("#gallery-count", this.section).textContent = many ? ` ${many}` : "";
    find("#clear", this.section).disabled = many === 0;
    this.compare.disabled = this.picked.length !== 2;
  }
}
