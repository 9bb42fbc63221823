// The dialog in which a mask is painted over a picture: by mouse, pen or finger, or by numbers from the keyboard.

import { announce } from "./announce.js";
import { find, openDialog } from "./dom.js";
import { MaskStrokes, measure } from "./mask_strokes.js";

const MAX_SIDE = 1_536; // of the mask, in pixels

/** Wires the dialog once. Returns open(pictureUri, maskUri) -> the mask as a data URI, or null if it was left. */
export function wireMaskEditor(dialog) {
  const canvas = find("canvas", dialog);
  const [size, erase, told, picture] = ["#mask-size", "#mask-erase", "#mask-told", "#mask-picture"].map((one) => find(one, dialog));
  let strokes = new MaskStrokes();
  let line = null;
  let finish = () => {};

  function show() {
    strokes.paint(canvas);
    const [undo, redo] = [find("#mask-undo", dialog), find("#mask-redo", dialog)];
    const focused = document.activeElement;
    [undo.disabled, redo.disabled] = [!strokes.canUndo, !strokes.canRedo];
    if (focused?.disabled) [undo, redo, size].find((one) => !one.disabled).focus();
    const share = measure(canvas);
    find("#mask-done", dialog).disabled = share === 0;
    told.textContent = `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)} % is drawn anew`;
  }
  const act = (stroke) => (strokes.add(stroke), show(), announce(told.textContent));

  function pointOf(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  }
  const brushSize = () => (Number(size.value) / 100) * Math.max(canvas.width, canvas.height);
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    line = { kind: "line", points: [pointOf(event)], size: brushSize(), erase: erase.checked || event.shiftKey };
    strokes.add(line);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!line) return;
    line.points.push(...(event.getCoalescedEvents?.() ?? [event]).map(pointOf));
    show();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (line = null));

  for (const kind of ["all", "invert", "clear"]) find(`#mask-${kind}`, dialog).addEventListener("click", () => act({ kind }));
  const move = (way) => (strokes[way](), show(), announce(told.textContent));
  for (const way of ["undo", "redo"]) find(`#mask-${way}`, dialog).addEventListener("click", () => move(way));
  dialog.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    move(event.shiftKey ? "redo" : "undo");
  });
  find("#mask-rectangle", dialog).addEventListener("submit", (event) => {
    event.preventDefault();
    const [x, y, width, height] = ["x", "y", "width", "height"].map((name, at) => (Number(event.target.elements[name].value) / 100) * (at % 2 ? canvas.height : canvas.width));
    act({ kind: "rectangle", x, y, width, height, erase: erase.checked });
  });
  find("#mask-done", dialog).addEventListener("click", () => (finish(canvas.toDataURL("image/png")), dialog.close()));
  find("#mask-leave", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => finish(null));

  return async function open(pictureUri, maskUri) {
    picture.src = pictureUri;
    await picture.decode();
    const scale = Math.min(1, MAX_SIDE / Math.max(picture.naturalWidth, picture.naturalHeight));
    canvas.width = Math.max(1, Math.round(picture.naturalWidth * scale));
    canvas.height = Math.max(1, Math.round(picture.naturalHeight * scale));
    strokes = new MaskStrokes();
    if (maskUri) strokes.add({ kind: "picture", image: await decode(maskUri) });
    openDialog(dialog);
    show();
    return new Promise((resolve) => {
      finish = (mask) => ((finish = () => {}), resolve(mask));
    });
  };
}

async function decode(uri) {
  const image = Object.assign(new Image(), { src: uri });
  await image.decode();
  return image;
}
