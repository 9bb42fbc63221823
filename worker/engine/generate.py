"""Request -> pictures, one after the other, each from its own seed.

One picture is drawn at a time: it then never depends on its neighbours in the batch, and can be encoded while the
next is drawn. Nothing here knows where pictures go.
"""

import copy
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from PIL.Image import Image

from worker.engine.loading import Engine
from worker.errors import JobTimeout
from worker.request import Picture, Request
from worker.schedulers import Scheduler

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Drawn:
    """A picture and what belongs to it.

    Attributes:
        image: RGB.
        nsfw: what the safety checker said; such a picture is black.
    """

    picture: Picture
    image: Image
    nsfw: bool


def generate(engine: Engine, request: Request, on_step: OnStep, deadline: float | None = None) -> Iterator[Drawn]:
    """Draw the request's pictures, in order.

    Args:
        on_step: called after each denoising step with the number done and the number in all, over all pictures.
        deadline: on time.monotonic()'s clock; checked at every step.

    Raises:
        JobTimeout: the deadline has passed.
    """
    pipeline = engine.pipeline
    pipeline.scheduler = build_scheduler(engine, request.scheduler)
    for index, picture in enumerate(request.pictures):
        after_step = functools.partial(_after_step, index, request, on_step, deadline)
        arguments = _arguments(engine, request, picture) | {"callback_on_step_end": after_step}
        result = pipeline(**{name: value for name, value in arguments.items() if name in engine.accepts})
        flags = getattr(result, "nsfw_content_detected", None) or [False]
        yield Drawn(picture, result.images[0], bool(flags[0]))


def _arguments(engine: Engine, request: Request, picture: Picture) -> dict[str, Any]:
    """What any pipeline is told; those that take less have had such fields refused."""
    arguments: dict[str, Any] = {
        "prompt": picture.prompt,
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.num_inference_steps,
        "generator": torch.Generator("cpu").manual_seed(picture.seed),
    }
    family = engine.model.family
    if family.negative_prompt:
        arguments["negative_prompt"] = request.negative_prompt
    if family.guidance:
        arguments[family.guidance] = request.guidance_scale
    return arguments


def _after_step(
    index: int,
    request: Request,
    on_step: OnStep,
    deadline: float | None,
    pipeline: Any,
    step: int,
    timestep: torch.Tensor,
    tensors: Mapping[str, Any],
) -> Mapping[str, Any]:
    if deadline is not None and time.monotonic() > deadline:
        raise JobTimeout(f"stopped at step {step + 1} of picture {index + 1}: the job's time is over (JOB_TIMEOUT_S)")
    steps = getattr(pipeline, "num_timesteps", request.num_inference_steps)  # some schedulers step twice
    on_step(index * steps + step + 1, len(request.pictures) * steps)
    return tensors


def build_scheduler(engine: Engine, row: Scheduler) -> Any:
    """A scheduler of this row on the model's own original config, without any earlier job's state.

    It is copied from one that is kept, because some classes take half a second to construct.
    """
    key = (row.class_name, *row.options.items())
    if key not in engine.schedulers:
        scheduler_class = getattr(diffusers, row.class_name)
        engine.schedulers[key] = scheduler_class.from_config(dict(engine.scheduler_config), **row.options)
    return copy.deepcopy(engine.schedulers[key])
