// Pictures that were drawn, kept in this browser's IndexedDB. The newest stay; the oldest go first.

const NAME = "playground";
const STORE = "pictures";
export const MAX_PICTURES = 200;
const MAX_BYTES = 200_000_000;

/** A store of pictures; where the browser has no database, or no room in it, they are kept until the page is left. */
export class GalleryStore {
  #database = null;
  #memory = [];

  async open() {
    this.#database = await new Promise((resolve) => {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    }).catch(() => null);
    return this;
  }

  /** All pictures, the newest first. */
  async list() {
    const stored = this.#database ? await this.#ask("readonly", (store) => store.getAll()).catch(() => []) : [];
    return [...stored, ...this.#memory].reverse();
  }

  /** Keeps a picture and drops what is too old for it; returns it with its id. */
  async add(item) {
    const id = this.#database ? await this.#ask("readwrite", (store) => store.add(item)).catch(() => null) : null;
    const kept = { ...item, id: id ?? `m${Date.now()}${Math.random()}` };
    if (id === null) this.#memory.push(kept);
    await this.#bound();
    return kept;
  }

  async remove(id) {
    this.#memory = this.#memory.filter((item) => item.id !== id);
    if (this.#database && !String(id).startsWith("m")) await this.#ask("readwrite", (store) => store.delete(id));
  }

  async clear() {
    this.#memory = [];
    if (this.#database) await this.#ask("readwrite", (store) => store.clear());
  }

  async #bound() {
    let bytes = 0;
    for (const [place, item] of (await this.list()).entries()) {
      bytes += item.blob?.size ?? 0;
      if (place >= MAX_PICTURES || (bytes > MAX_BYTES && place > 0)) await this.remove(item.id).catch(() => {});
    }
  }

  #ask(mode, operation) {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(STORE, mode);
      const request = operation(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result); // not before: for want of room it fails at its end
      transaction.onabort = () => reject(transaction.error);
    });
  }
}
