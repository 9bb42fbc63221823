"""The embedded model, by plain diffusers: it loads in silence, is small, and draws what it is asked for."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from training.judge import judge

MODEL = Path(__file__).parents[2] / "models" / "shapes"
MIB = 2**20


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipe = StableDiffusionPipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _draw(pipe: StableDiffusionPipeline, prompt: str, seed: int = 3, guidance: float = 2.0) -> NDArray[np.uint8]:
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(pipe(prompt, num_inference_steps=20, guidance_scale=guidance, generator=generator).images[0])


def test_it_is_small_enough_for_git() -> None:
    sizes = [file.stat().st_size for file in MODEL.rglob("*") if file.is_file()]
    assert max(sizes) <= 16 * MIB and sum(sizes) <= 25e6


def test_a_red_circle_is_red_and_round(pipe: StableDiffusionPipeline) -> None:
    background, seen = judge(_draw(pipe, "a large red circle on a white background"))
    assert background == "white"
    assert [(s.colour, s.shape, s.size) for s in seen] == [("red", "circle", "large")]


def test_two_objects_stand_as_they_are_told(pipe: StableDiffusionPipeline) -> None:
    background, seen = judge(_draw(pipe, "a yellow star left of a green square on a black background"))
    assert background == "black"
    assert [(s.colour, s.shape) for s in sorted(seen, key=lambda s: s.x)] == [("yellow", "star"), ("green", "square")]


def test_two_seeds_are_two_pictures(pipe: StableDiffusionPipeline) -> None:
    first, other = (_draw(pipe, "a blue heart on white", seed) for seed in (1, 2))
    assert np.abs(first.astype(int) - other).mean() > 2


def test_empty_prompts_give_varied_scenes(pipe: StableDiffusionPipeline) -> None:
    scenes = [judge(_draw(pipe, "", seed)) for seed in range(4)]
    assert all(seen for _, seen in scenes)
    assert len({(background, len(seen), seen[0].colour) for background, seen in scenes}) > 1
