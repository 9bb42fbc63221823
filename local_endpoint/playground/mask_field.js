// The mask's field, with a button that opens the editor over the picture of the form.

import { button } from "./dom.js";
import { wireMaskEditor } from "./mask_editor.js";

/** Wires the editor's dialog. `refresh(form)` gives the form's mask its button, where a picture can be painted over. */
export function wireMask(dialog) {
  const openEditor = wireMaskEditor(dialog);

  function addButton(form, widget) {
    const paint = button("Paint a mask", async () => {
      const image = pictureOf(form);
      const mask = await openEditor(image, widget.read()?.startsWith("data:") ? widget.read() : null);
      if (mask) widget.write(mask);
      paint.focus();
    });
    widget.tools.prepend(paint);
    return paint;
  }

  return {
    refresh(form) {
      const widget = form?.widgets.get("mask");
      if (!widget) return;
      widget.paint ??= addButton(form, widget);
      widget.paint.disabled = !pictureOf(form);
      widget.paint.title = widget.paint.disabled ? "Only over a picture that is in the form itself" : "";
    },
  };
}

/** The picture that is masked, if the page has its pixels. */
function pictureOf(form) {
  const image = form.widgets.get("image")?.read() ?? form.widgets.get("images")?.read()?.[0];
  return image?.startsWith("data:") ? image : null;
}
