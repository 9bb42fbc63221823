"""The other side of every comparison: a model in diffusers' own pipeline, and nothing of the worker's."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from drawing import SMALL
from PIL.Image import Image

# What our tests ask of UNets, for a fixed scheduler in every task; transformers have one of their own.
EULER = {"scheduler": "Euler"}


def plain(model: Path, kind: str | None = None, **extra: Any) -> Any:
    """The pipeline of this class, or the one that the model names, with the Euler scheduler for UNets.

    Args:
        extra: further modules, such as `controlnet`.
    """
    loader = getattr(diffusers, kind) if kind else diffusers.DiffusionPipeline
    pipeline = loader.from_pretrained(model, **extra)
    if hasattr(pipeline, "unet"):
        pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plainly(pipeline: Any, seed: int = SMALL["seed"], **fields: Any) -> Image:
    """What it draws for the tests' usual fields and these."""
    call = {name: value for name, value in SMALL.items() if name != "seed"} | fields
    call = {name: value for name, value in call.items() if value is not None}
    torch.manual_seed(seed)  # for what a pipeline samples without the generator
    drawn: Image = pipeline(**call, generator=torch.Generator().manual_seed(seed)).images[0]
    return drawn
