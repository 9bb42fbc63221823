"""For the same seed, our picture is plain diffusers' picture, pixel for pixel: every family, every scheduler.

The options that each scheduler name stands for are written here once more, so that a change of the worker's table is
noticed.
"""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from drawing import SMALL, assert_same, draw, picture
from PIL.Image import Image
from tiny_models import UNETS

from worker import schedulers
from worker.engine.loading import Engine

KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
UNCLIPPED = {"clip_sample": False}
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "LMS": ("LMSDiscreteScheduler", {}),
    "LMS Karras": ("LMSDiscreteScheduler", KARRAS),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler Karras": ("EulerDiscreteScheduler", KARRAS),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", KARRAS),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", SDE),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", SDE | KARRAS),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DDIM": ("DDIMScheduler", UNCLIPPED),
    "DDPM": ("DDPMScheduler", UNCLIPPED),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LCM": ("LCMScheduler", UNCLIPPED),
    "IPNDM": ("IPNDMScheduler", {}),
}
# IPNDM knows no prediction type but epsilon.
CASES = [(family, name) for family in UNETS for name in EXPECTED if (family, name) != ("sd2-v", "IPNDM")]


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, diffusers.DiffusionPipeline]:
    """Family -> the same model in diffusers' own pipeline, and nothing of the worker's."""
    pipelines = {}
    for family, folder in folders.items():
        xl = "XL" if family == "sdxl" else ""
        pipelines[family] = getattr(diffusers, f"StableDiffusion{xl}Pipeline").from_pretrained(folder)
        pipelines[family].set_progress_bar_config(disable=True)
    return pipelines


def plainly(pipeline: diffusers.DiffusionPipeline, seed: int = SMALL["seed"], **fields: Any) -> Image:
    call = {name: value for name, value in SMALL.items() if name != "seed"} | fields
    return pipeline(**call, generator=torch.Generator().manual_seed(seed)).images[0]


def with_scheduler(pipeline: diffusers.DiffusionPipeline, name: str) -> diffusers.DiffusionPipeline:
    """A pipeline of the same parts, so that the next test finds the model's own scheduler."""
    class_name, options = EXPECTED[name]
    scheduler = getattr(diffusers, class_name).from_config(pipeline.scheduler.config, **options)
    copy = type(pipeline)(**{**pipeline.components, "scheduler": scheduler}, **no_checker(pipeline))
    copy.set_progress_bar_config(disable=True)
    return copy


def no_checker(pipeline: diffusers.DiffusionPipeline) -> dict[str, bool]:
    return {"requires_safety_checker": False} if "safety_checker" in pipeline.components else {}


def test_every_scheduler_of_the_table_has_its_oracle() -> None:
    assert list(EXPECTED) == [row.name for row in schedulers.SCHEDULERS if row.noise == "diffusion"]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_family_and_scheduler(family: str, name: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ours = picture(engines[family], scheduler=name)
    assert_same(ours, plainly(with_scheduler(plain[family], name)))


@pytest.mark.parametrize("family", UNETS)
def test_each_seed_prompt_and_scheduler_gives_another_picture(family: str, engines: dict[str, Engine]) -> None:
    """Else the tests here would hold for a worker that ignores the request."""
    engine = engines[family]
    changes: list[dict[str, Any]] = [{}, {"seed": 8}, {"prompt": "a dog"}, {"scheduler": "Euler a"}]
    changes += [{"guidance_scale": 1}, {"negative_prompt": "blue"}, {"num_inference_steps": 5}]
    pictures = {picture(engine, **change).tobytes() for change in changes}
    assert len(pictures) == len(changes)


@pytest.mark.parametrize("family", ["sd2", "sd2-v", "sdxl"])
def test_default_scheduler_is_the_models_own(family: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    assert_same(picture(engines[family]), plainly(plain[family]))


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize(
    "fields",
    [
        {"guidance_scale": 0},
        {"guidance_scale": 1},
        {"guidance_scale": 12.5},
        {"negative_prompt": "blue, blurry"},
        {"negative_prompt": ""},
        {"prompt": ""},
        {"prompt": "x" * 200},
        {"width": 96, "height": 64},
        {"width": 64, "height": 104},
        {"seed": 2**32 - 1},
    ],
    ids=lambda fields: ",".join(f"{name}={str(value)[:12]}" for name, value in fields.items()),
)
def test_fields(family: str, fields: dict[str, Any], engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ours = picture(engines[family], scheduler="Euler", **fields)
    assert_same(ours, plainly(with_scheduler(plain[family], "Euler"), **fields))


@pytest.mark.parametrize("family", UNETS)
def test_two_prompts_are_two_calls(family: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ours = draw(engines[family], prompt=["a red square", "a blue dot"], scheduler="Euler", seed=[3, 9])
    pipeline = with_scheduler(plain[family], "Euler")
    assert_same(ours[0].image, plainly(pipeline, prompt="a red square", seed=3))
    assert_same(ours[1].image, plainly(pipeline, prompt="a blue dot", seed=9))
