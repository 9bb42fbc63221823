// A mask as a list of strokes and areas, drawn white on black; what is undone can be done again.

const MAX_STROKES = 2_000;

export class MaskStrokes {
  #done = [];
  #undone = [];

  /** Adds one: {kind: "line", points, size, erase}, "rectangle" {x, y, width, height, erase}, "all", "invert", "clear". */
  add(stroke) {
    this.#done.push(stroke);
    this.#done.splice(0, this.#done.length - MAX_STROKES);
    this.#undone = [];
  }

  undo = () => this.#move(this.#done, this.#undone);
  redo = () => this.#move(this.#undone, this.#done);
  get canUndo() {
    return this.#done.length > 0;
  }
  get canRedo() {
    return this.#undone.length > 0;
  }

  #move(from, to) {
    if (from.length) to.push(from.pop());
  }

  /** Draws the mask over the whole of a canvas. */
  paint(canvas) {
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    fill(brush, canvas, "black");
    this.#done.forEach((stroke) => DRAW[stroke.kind](brush, canvas, stroke));
  }
}

const DRAW = {
  line: drawLine,
  rectangle: (brush, _, { x, y, width, height, erase }) => {
    brush.fillStyle = erase ? "black" : "white";
    brush.fillRect(x, y, width, height);
  },
  all: (brush, canvas) => fill(brush, canvas, "white"),
  clear: (brush, canvas) => fill(brush, canvas, "black"),
  picture: (brush, canvas, { image }) => brush.drawImage(image, 0, 0, canvas.width, canvas.height),
  invert: (brush, canvas) => {
    brush.globalCompositeOperation = "difference";
    fill(brush, canvas, "white");
    brush.globalCompositeOperation = "source-over";
  },
};

function fill(brush, canvas, colour) {
  brush.fillStyle = colour;
  brush.fillRect(0, 0, canvas.width, canvas.height);
}

function drawLine(brush, _, { points, size, erase }) {
  Object.assign(brush, { strokeStyle: erase ? "black" : "white", lineWidth: size, lineCap: "round", lineJoin: "round" });
  brush.beginPath();
  brush.moveTo(...points[0]);
  points.slice(1).forEach((point) => brush.lineTo(...point));
  brush.lineTo(points.at(-1)[0] + 0.01, points.at(-1)[1]); // a line of no length would leave no dot
  brush.stroke();
}

/** The share of a mask that is drawn anew, 0 to 1. */
export function measure(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let white = 0;
  for (let at = 0; at < data.length; at += 4) white += data[at];
  return white / 255 / (data.length / 4);
}
