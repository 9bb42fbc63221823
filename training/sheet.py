"""The contact sheet of the README: `python -m training.sheet`. Twelve prompts, drawn by the finished model."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from training.evaluate import GUIDANCE
from training.world import SIDE

PROMPTS = (
    "a big blue star over a yellow background",
    "a red circle left of a green square on white",
    "a striped purple heart on a pink background",
    "three yellow stars on a black background",
    "a white ring above an orange diamond, blue background",
    "a small red heart and a large green triangle on white",
    "a pink circle, a white star and a yellow square in a row on purple",
    "a hollow orange star on a brown background",
    "a black cross to the right of a red ring, grey background",
    "two big red hearts on white",
    "a blue triangle above a yellow circle on green",
    "an orange doughnut in the middle of a white background",
)
COLUMNS, GAP, TEXT = 4, 12, 34
TARGET = Path("docs/images/shapes.png")


def main() -> None:
    """Draw the prompts, one seed each, and lay the pictures out with their prompts below them."""
    pipe = StableDiffusionPipeline.from_pretrained("models/shapes")
    pipe.set_progress_bar_config(disable=True)
    pictures = [_drawn(pipe, prompt) for prompt in PROMPTS]
    rows = -(-len(PROMPTS) // COLUMNS)
    step_x, step_y = SIDE + GAP, SIDE + TEXT + GAP
    sheet = Image.new("RGB", (COLUMNS * step_x + GAP, rows * step_y + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for n, (prompt, picture) in enumerate(zip(PROMPTS, pictures, strict=True)):
        x, y = GAP + n % COLUMNS * step_x, GAP + n // COLUMNS * step_y
        sheet.paste(picture, (x, y))
        pen.multiline_text((x + 2, y + SIDE + 4), _wrapped(prompt), "#333333", font)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(TARGET, optimize=True)


def _drawn(pipe: StableDiffusionPipeline, prompt: str) -> Image.Image:
    generator = torch.Generator().manual_seed(1)
    picture: Image.Image = pipe(prompt, num_inference_steps=20, guidance_scale=GUIDANCE, generator=generator).images[0]
    return picture


def _wrapped(text: str, width: int = 40) -> str:
    """Two lines at most."""
    if len(text) <= width:
        return text
    cut = text.rindex(" ", 0, width)
    return text[:cut] + "\n" + text[cut + 1 :]


if __name__ == "__main__":
    main()
