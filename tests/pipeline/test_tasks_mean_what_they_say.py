"""Meaning of every task, on the embedded model: what is seen in the picture is what the request asked for."""

from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.helpers.drawing import load_engine, uri
from training.judge import Seen, judge
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.plan import make_plan

CIRCLE = "a large red circle on a white background"
STAR = "a large blue star on a yellow background"
STEPS = 12  # enough for what is asked here; the model's own 20 are in test_shapes_model.py


@pytest.fixture(scope="module")
def shapes() -> Engine:
    return load_engine()


@pytest.fixture(scope="module")
def circle(shapes: Engine) -> Image.Image:
    return drawn(shapes, CIRCLE)


def drawn(engine: Engine, prompt: str, **fields: object) -> Image.Image:
    request = parse(
        {"input": {"prompt": prompt, "seed": 3, "num_inference_steps": STEPS, **fields}}, engine.capabilities
    )[0]
    (one,) = generate(engine, make_plan(request), lambda *_: None)
    return one.image


def seen(image: Image.Image) -> tuple[str, list[Seen]]:
    return judge(np.asarray(image))


def things(image: Image.Image) -> set[tuple[str, str]]:
    """Colour and shape of every object."""
    return {(one.colour, one.shape) for one in seen(image)[1]}


def redness(image: Image.Image) -> float:
    """How much of the picture is red."""
    pixels = np.asarray(image, dtype=int)
    return float((pixels[..., 0] - pixels[..., 1:].max(-1) > 80).mean())


def test_image_to_image_moves_the_scene_towards_the_prompt_by_strength(shapes: Engine, circle: Image.Image) -> None:
    assert things(circle) == {("red", "circle")}
    little, much = (drawn(shapes, STAR, image=uri(circle), strength=strength) for strength in (0.2, 0.95))

    assert things(little) == {("red", "circle")}
    assert seen(much)[0] == "yellow" and things(much) == {("blue", "star")}


def test_inpainting_changes_only_the_mask_and_there_draws_what_was_asked(shapes: Engine) -> None:
    before = drawn(shapes, "a green square on the left, white background")
    mask = Image.new("L", (256, 256))
    ImageDraw.Draw(mask).rectangle((136, 0, 256, 256), fill=255)
    both = "a green square on the left and a red circle on the right, white background"
    after = drawn(shapes, both, image=uri(before), mask=uri(mask))

    kept = np.asarray(mask) == 0
    assert (np.asarray(after)[kept] == np.asarray(before)[kept]).all()
    assert redness(after) > 0.03


@pytest.mark.parametrize("seed", range(2))
def test_a_negative_prompt_removes(seed: int, shapes: Engine) -> None:
    star = partial(drawn, shapes, "a blue star", seed=seed, guidance_scale=3)
    background, _ = seen(star())
    without = star(negative_prompt=f"{background} background")

    assert seen(without)[0] != background
    assert ("blue", "star") in things(without)


def test_a_lora_is_visible_with_it_and_gone_without(shapes: Engine, circle: Image.Image) -> None:
    neon, half = (drawn(shapes, CIRCLE, lora="neon", lora_scale=scale) for scale in (1.0, 0.5))
    brightness = [float(np.median(np.asarray(image))) for image in (circle, half, neon)]

    assert brightness[0] > 200 and brightness[2] < 60
    assert brightness[0] >= brightness[1] >= brightness[2]
    assert drawn(shapes, CIRCLE) == circle


def test_a_weighted_word_changes_the_picture_in_its_direction(shapes: Engine) -> None:
    prompt = "a (red circle:{}), a blue square, on a white background"
    light, normal, heavy = (redness(drawn(shapes, prompt.format(weight), seed=5)) for weight in (0.2, 1.0, 1.8))

    assert light < normal / 2 and normal < heavy / 2
