"""Meaning, through the worker: the embedded model draws what a job asks for, and draws it again for the same seed."""

import numpy as np
import pytest

from tests.helpers.drawing import load_engine
from training.judge import judge
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.plan import make_plan


@pytest.fixture(scope="module")
def shapes() -> Engine:
    return load_engine()


def pixels(engine: Engine, prompt: str, **fields: object) -> np.ndarray:
    request = parse({"input": {"prompt": prompt, "seed": 3, **fields}}, engine.capabilities)[0]
    (drawn,) = generate(engine, make_plan(request), lambda *_: None)
    return np.asarray(drawn.image)


def test_the_test_input_is_drawn(shapes: Engine) -> None:
    background, (star,) = judge(pixels(shapes, "a big blue star on a yellow background", seed=42))

    assert (background, star.colour, star.shape, star.size) == ("yellow", "blue", "star", "large")


def test_a_red_circle_is_red_and_round_on_the_background_asked_for(shapes: Engine) -> None:
    background, (circle,) = judge(pixels(shapes, "a large red circle on a white background"))

    assert (background, circle.colour, circle.shape) == ("white", "red", "circle")


def test_the_same_seed_gives_the_same_pixels_and_another_seed_another_picture(shapes: Engine) -> None:
    first, again, other = (pixels(shapes, "a green heart", seed=seed, num_inference_steps=4) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_model_is_drawn_at_its_own_size_steps_and_guidance(shapes: Engine) -> None:
    request = parse({"input": {"prompt": "a green heart"}}, shapes.capabilities)[0]

    assert (request.width, request.height) == (256, 256)
    assert (request.num_inference_steps, request.guidance_scale) == (20, 2.0)
    assert request.scheduler.class_name == "LMSDiscreteScheduler"
