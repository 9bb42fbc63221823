"""LMS stays on the path when it starts in the middle of its schedule, where diffusers' own goes astray."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, LMSDiscreteScheduler
from numpy.typing import NDArray

from tests.helpers.drawing import load_engine, picture, scene, uri
from tests.helpers.plain_diffusers import around, load_plain, run, scheduler_of
from tests.helpers.tiny_models import BETAS
from worker.engine.engine import Engine
from worker.engine.scheduling import BoundedLMS

STEPS = 20
SPREAD = 0.5


def samples(kind: type[LMSDiscreteScheduler], start: int) -> list[float]:
    """The samples of a run from this step on, as shares of what the exact path ends with.

    The data are a normal distribution of this spread, whose best denoiser is known and with it the exact path: there
    sample(sigma) grows with sqrt(spread^2 + sigma^2).
    """
    scheduler = kind(**BETAS)
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(start)  # as image to image does
    sample = torch.tensor([math.hypot(SPREAD, float(scheduler.sigmas[start]))], dtype=torch.float64)
    found = []
    for timestep, sigma in zip(scheduler.timesteps[start:], scheduler.sigmas[start:-1].tolist(), strict=True):
        noise = sample * sigma / (SPREAD**2 + sigma**2)
        sample = scheduler.step(noise, timestep, sample).prev_sample
        found.append(float(sample) / SPREAD)
    return found


def test_from_the_start_it_is_diffusers_own() -> None:
    assert samples(BoundedLMS, 0) == samples(LMSDiscreteScheduler, 0)


@pytest.mark.parametrize(("start", "error", "without"), [(10, 0.001, 0.07), (14, 0.005, 0.16), (17, 0.04, 0.6)])
def test_from_the_middle_it_ends_where_the_exact_path_does(start: int, error: float, without: float) -> None:
    assert abs(samples(BoundedLMS, start)[-1] - 1) < error
    assert abs(samples(LMSDiscreteScheduler, start)[-1] - 1) > without, "diffusers has mended it: take its own again"


def exact(plain: DiffusionPipeline, steps: int, sigmas: str, call: dict[str, Any]) -> NDArray[np.float32]:
    """The last so many of LMS's steps, each in ten by Euler, from the same noise."""
    many = 10 * (STEPS - 1) + 1  # a schedule ten times as fine that shares all of its timesteps
    strength = (10 * (steps - 1) + 1.5) / many
    return moved(plain, f"Euler{sigmas}", call | {"num_inference_steps": many, "strength": strength})


def moved(plain: DiffusionPipeline, scheduler: str, call: dict[str, Any]) -> NDArray[np.float32]:
    pipeline = around(plain, "StableDiffusionImg2ImgPipeline", scheduler=scheduler_of(plain, scheduler))
    return np.asarray(run(pipeline, **call)[0], np.float32)


def errors(engine: Engine, plain: DiffusionPipeline, strength: float, sigmas: str = "") -> tuple[float, float]:
    """How far our picture is from the exact path's, and how far diffusers' is; mean over the pixels, of 255."""
    image = scene(128, 128)
    call: dict[str, Any] = {"prompt": "a red square", "guidance_scale": 1.0}
    reference = exact(plain, int(STEPS * strength), sigmas, call | {"image": image})
    call |= {"num_inference_steps": STEPS, "strength": strength}
    ours = picture(engine, **call, width=128, height=128, image=uri(image), scheduler=f"LMS{sigmas}")
    theirs = moved(plain, f"LMS{sigmas}", call | {"image": image})
    return float(np.abs(np.asarray(ours) - reference).mean()), float(np.abs(theirs - reference).mean())


def test_image_to_image_of_a_tiny_model(sd1: Engine, plain: dict[str, DiffusionPipeline]) -> None:
    ours, theirs = errors(sd1, plain["sd1"], 0.15)
    assert ours < theirs / 3


def test_image_to_image_of_a_real_model() -> None:
    folder = Path(__file__).parents[2] / "models" / "shapes"
    ours, theirs = errors(load_engine(MODEL_NAME=str(folder)), load_plain(folder), 0.3, " Karras")  # the model's own
    assert ours < theirs / 3
