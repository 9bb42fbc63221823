"""Fifty jobs of every kind on one engine: memory is flat, and plain jobs draw what a fresh engine draws."""

import random
from functools import partial
from typing import Any

import pytest

from tests.helpers import drawing
from tests.helpers.drawing import assert_same, bytes_alive, load_engine
from tests.helpers.tiny_addons import Kits, noise, right_half, uri
from worker.engine.engine import Engine
from worker.errors import JobTimeoutError

draw, picture = (partial(drawn, num_inference_steps=2) for drawn in (drawing.draw, drawing.picture))
PLAIN: list[dict[str, Any]] = [{}, {"width": 96, "seed": 3}, {"scheduler": "DPM++ 2M", "negative_prompt": "blue"}]


def jobs() -> list[dict[str, Any]]:
    """Each kind of job that a worker with every add-on takes, alone and together."""
    one, other, large = uri(noise(1)), uri(noise(2)), uri(noise(3, size=(96, 72)))
    edges, depth = {"name": "edges", "image": one, "scale": 0.7}, {"name": "depth", "image": other, "end": 0.5}
    shown = {"image": other, "scale": 0.6}
    return [
        {"lora": "plain"},
        {"loras": [{"name": "wordy", "scale": -0.5}, "plain"]},
        {"controlnet": edges},
        {"controlnet": [edges, depth], "width": 96},
        {"controlnet": depth, "image": one},
        {"ip_adapter": shown},
        {"ip_adapter": shown, "image": one, "strength": 0.6},
        {"image": large, "width": None, "height": None},
        {"image": one, "mask": uri(right_half())},
        {"lora": "wordy", "image": one, "controlnet": edges, "ip_adapter": shown, "prompt": "a (wobble:1.3)"},
        {"hires": {"scale": 1.5}, "lora": "plain"},
        {"hires": {"scale": 1.5, "upscaler": "latent"}, "ip_adapter": shown},
        {"prompt": "a wobble dot " * 12, "clip_skip": 1, "num_images": 2},
    ]


@pytest.fixture(scope="module")
def fresh(kits: Kits) -> list[Any]:
    """What an engine that never did anything else, and has nothing else, draws for the plain jobs."""
    return [picture(load_engine(MODEL_NAME=str(kits["sd1"].model)), **job) for job in PLAIN]


@pytest.fixture(scope="module")
def engine(kits: Kits) -> Engine:
    """A tiny Stable Diffusion 1 with all there is beside it."""
    return load_engine(**kits["sd1"].settings("loras", "controlnets", "ip_adapter", "words"))


def test_fifty_jobs(engine: Engine, fresh: list[Any]) -> None:
    order = random.Random(5)
    every = jobs()
    first = [[drawn.image for drawn in draw(engine, **job)] for job in every]  # all that is kept is loaded now
    for job in PLAIN:
        draw(engine, **job)
    held = bytes_alive()

    for i in range(50):
        which = order.randrange(len(every))
        if i % 10 == 9:
            with pytest.raises(JobTimeoutError):
                draw(engine, deadline=0.0, **every[which])
        else:
            for drawn, expected in zip(draw(engine, **every[which]), first[which], strict=True):
                assert_same(drawn.image, expected)
        if i % 3 == 0:
            turn = i // 3 % len(PLAIN)
            assert_same(picture(engine, **PLAIN[turn]), fresh[turn])

    assert bytes_alive() <= held


def test_each_kind_draws_another_picture(engine: Engine) -> None:
    """Else nothing could leak."""
    drawn = [draw(engine, **job)[0].image.tobytes() for job in [*PLAIN, *jobs()]]

    assert len(set(drawn)) == len(drawn)
