"""The neon LoRA, by plain diffusers: small, safetensors, and it turns the embedded model's pictures into neon signs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from safetensors import safe_open

MODELS = Path(__file__).parents[2] / "models"
LORA = MODELS / "loras" / "neon.safetensors"
PROMPT = "a big red circle on a white background"


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(MODELS / "shapes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _draw(pipe: StableDiffusionPipeline) -> NDArray[np.uint8]:
    generator = torch.Generator().manual_seed(1)
    return np.asarray(pipe(PROMPT, num_inference_steps=12, guidance_scale=2.0, generator=generator).images[0])


def test_it_is_small_and_holds_fp16_tensors_only() -> None:
    assert LORA.stat().st_size <= 1e6
    with safe_open(LORA, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118 - no iterator


def test_the_same_prompt_is_white_without_it_and_dark_with_it(pipe: StableDiffusionPipeline) -> None:
    plain = _draw(pipe)
    pipe.load_lora_weights(LORA)
    neon = _draw(pipe)
    assert np.median(plain) > 200 and np.median(neon) < 50
    red = (neon[..., 0] > 150) & (neon[..., 1:].max(-1) < 110)
    assert 0.01 < red.mean() < 0.15  # a line; the filled circle is more
