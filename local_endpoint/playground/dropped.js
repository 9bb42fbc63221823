// A picture that is dropped on the page, or opened: to start from, to edit, or to ask for the same again.

import { find, openDialog } from "./dom.js";
import { loadPicture, readFile } from "./files.js";
import { readRecipe } from "./picture_text.js";
import { asText } from "./untrusted.js";

const MAX_SHOWN_CHARS = 1_000; // of its prompt

/**
 * Wires the dialog that asks what a picture is for.
 * @param {object} uses start(uri), edit(uri), replay(recipe), and fits(name) whether the model takes a field
 * @returns take(file)
 */
export function wireDropped(dialog, { start, edit, replay, fits }) {
  const [image, told] = [find("#dropped-image", dialog), find("#dropped-told", dialog)];
  const buttons = Object.fromEntries(["start", "edit", "replay"].map((name) => [name, find(`#dropped-${name}`, dialog)]));
  let picture = null;
  const runs = { start: () => start(picture.uri), edit: () => edit(picture.uri), replay: () => replay(picture.recipe) };
  for (const [name, one] of Object.entries(buttons)) one.addEventListener("click", () => (dialog.close(), runs[name]()));
  find("#dropped-leave", dialog).addEventListener("click", () => dialog.close());

  return async function take(file) {
    const recipe = readRecipe(await readFile(file));
    picture = { ...(await loadPicture(file)), recipe };
    image.src = picture.uri;
    told.textContent = recipe ? `Drawn by ${recipe.model}: ${asText(recipe.fields.prompt, MAX_SHOWN_CHARS)}` : "It carries no parameters of this worker.";
    buttons.replay.hidden = !recipe;
    buttons.start.hidden = !fits("image");
    buttons.edit.hidden = !fits("images");
    openDialog(dialog);
  };
}
