"""Request -> pictures, one after the other, each from its own seed.

One picture is drawn at a time: it then never depends on its neighbours in the batch, and can be encoded while the
next is drawn. Nothing here knows where pictures go.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
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
    steps = _Steps(request, on_step, deadline)
    for picture in request.pictures:
        result = _draw(engine, request, picture, steps)
        flags = getattr(result, "nsfw_content_detected", None) or [False]
        yield Drawn(picture, result.images[0], bool(flags[0]))


def _draw(engine: Engine, request: Request, picture: Picture, steps: "_Steps") -> Any:
    base = engine.pipeline
    base.scheduler = build_scheduler(engine, request.scheduler)
    arguments = _arguments(engine, request, picture) | steps.callbacks(base)
    arguments = {name: value for name, value in arguments.items() if name in engine.accepts}
    if request.refinement is None or engine.refiner is None:
        return base(**arguments)
    share = request.refinement.high_noise_frac
    latents = base(**arguments, denoising_end=share, output_type="latent").images
    engine.refiner.scheduler = build_scheduler(engine, request.scheduler)
    return engine.refiner(
        prompt=picture.prompt,
        negative_prompt=request.negative_prompt,
        image=latents,
        denoising_start=share,
        num_inference_steps=request.refinement.steps,
        guidance_scale=request.guidance_scale,
        generator=arguments["generator"],
        callback_on_step_end=steps.callbacks(engine.refiner)["callback_on_step_end"],
    )


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
    if family.negative_prompt and request.negative_prompt is not None:  # each pipeline has its own idea of none
        arguments["negative_prompt"] = request.negative_prompt
    if family.guidance:
        arguments[family.guidance] = request.guidance_scale
    return arguments


class _Steps:
    """Counts the denoising steps of a job, over all its pictures and passes, and watches the clock."""

    def __init__(self, request: Request, on_step: OnStep, deadline: float | None) -> None:
        refinement = request.refinement
        refined = round(refinement.steps * (1 - refinement.high_noise_frac)) if refinement else 0
        self._lengths: dict[bool, int] = {False: request.num_inference_steps, True: refined}  # refining or not
        self._pictures = len(request.pictures)
        self._on_step = on_step
        self._deadline = deadline
        self._done = 0

    def callbacks(self, pipeline: Any) -> dict[str, Any]:
        """Both ways in which pipelines tell of their steps; each takes one of them."""

        def on_step_end(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self._tick(pipeline)
            return tensors

        return {"callback_on_step_end": on_step_end, "callback": lambda *_: self._tick(pipeline), "callback_steps": 1}

    def _tick(self, pipeline: Any) -> None:
        self._done += 1
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise JobTimeout(f"stopped after {self._done} steps: the job's time is over (JOB_TIMEOUT_S)")
        refining = isinstance(pipeline, StableDiffusionXLImg2ImgPipeline)
        # Some schedulers step twice for each step that was asked for.
        self._lengths[refining] = getattr(pipeline, "num_timesteps", self._lengths[refining])
        self._on_step(self._done, max(self._done, self._pictures * sum(self._lengths.values())))


def build_scheduler(engine: Engine, row: Scheduler) -> Any:
    """A scheduler of this row on the model's own original config, without any earlier job's state.

    It is copied from one that is kept, because some classes take half a second to construct.
    """
    key = (row.class_name, *row.options.items())
    if key not in engine.schedulers:
        scheduler_class = getattr(diffusers, row.class_name)
        engine.schedulers[key] = scheduler_class.from_config(dict(engine.scheduler_config), **row.options)
    return copy.deepcopy(engine.schedulers[key])
