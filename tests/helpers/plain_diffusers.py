"""The oracle: the same model in diffusers' own pipelines, with nothing of the worker's.

The options that each scheduler name stands for are written here once more, so that a change of the worker's table is
noticed.
"""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image

from tests.helpers.drawing import SMALL

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


# What tests ask of UNets that compare with `plain`; transformers have a scheduler of their own.
EULER = {"scheduler": "Euler"}


def plain(model: Path, kind: str | None = None, **extra: Any) -> Any:
    """The pipeline of this class, or the one that the model names, with the Euler scheduler for UNets.

    Args:
        extra: further modules, such as `controlnet`.
    """
    loader = getattr(diffusers, kind) if kind else DiffusionPipeline
    pipeline = loader.from_pretrained(model, **extra)
    if hasattr(pipeline, "unet"):
        pipeline.scheduler = scheduler_of(pipeline, "Euler")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_plain(folder: Path) -> DiffusionPipeline:
    """The model in this folder."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def around(pipeline: DiffusionPipeline, class_name: str | None = None, **parts: Any) -> DiffusionPipeline:
    """A pipeline of the same or another class around the same parts, so that the next test finds them as they were."""
    kind = getattr(diffusers, class_name) if class_name else type(pipeline)
    unchecked = {"requires_safety_checker": False} if "safety_checker" in pipeline.components else {}
    other = kind(**{**pipeline.components, **parts}, **unchecked)
    other.set_progress_bar_config(disable=True)
    return other


def scheduler_of(pipeline: DiffusionPipeline, name: str) -> Any:
    """A new scheduler of this name on the model's own config."""
    class_name, options = EXPECTED[name]
    return getattr(diffusers, class_name).from_config(pipeline.scheduler.config, **options)


def with_scheduler(pipeline: DiffusionPipeline, name: str) -> DiffusionPipeline:
    """The pipeline with another scheduler."""
    return around(pipeline, scheduler=scheduler_of(pipeline, name))


def run(pipeline: DiffusionPipeline, seed: int = SMALL["seed"], **call: Any) -> Any:
    """What the pipeline returns for exactly this call: pictures or latents."""
    torch.manual_seed(seed)  # for what a pipeline samples without the generator
    return pipeline(**call, generator=torch.Generator().manual_seed(seed)).images


def plainly(pipeline: DiffusionPipeline, seed: int = SMALL["seed"], **fields: Any) -> Image:
    """The picture for a call with these fields; what is not given is small, and None leaves a field out."""
    call = {name: value for name, value in SMALL.items() if name != "seed"} | fields
    return run(pipeline, seed, **{name: value for name, value in call.items() if value is not None})[0]
