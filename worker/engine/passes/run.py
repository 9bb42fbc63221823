"""Runs one pass: a pipeline with its scheduler, the arguments that every pass has, and callbacks for its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments
from worker.engine.preview import Prediction
from worker.engine.scheduling import build_scheduler, watch
from worker.engine.steps import MakePreview, StepCounter
from worker.plan import Pass, Plan


@dataclass(frozen=True)
class PassResult:
    """What a pass leaves: pictures, one for each of the batch, or latents of all of them.

    Attributes:
        flagged: what the safety checker said of each; such a picture is black.
        latents: (pictures, channels, rows, columns), if the pass was to return them; there are no images then.
    """

    images: list[Image]
    flagged: list[bool]
    latents: Tensor | None = None


def run_pass(
    engine: Engine,
    plan: Plan,
    number: int,
    pipeline: Any,
    arguments: dict[str, Any],
    generators: Sequence[torch.Generator],
    steps: StepCounter,
) -> PassResult:
    """Run pass `number` of the plan.

    Args:
        arguments: of the pipeline's call, those that are the task's own.
        generators: one for each picture of the batch.
    """
    request, one, guidance = plan.request, plan.passes[number], engine.capabilities.family.guidance
    pipeline.scheduler = build_scheduler(request.scheduler, engine.scheduler_config, engine.schedulers)
    arguments = arguments | {"generator": list(generators), "guidance_rescale": request.guidance_rescale}
    if guidance:
        arguments[guidance] = request.guidance_scale
    if request.image_prompt is not None and one.kind != "refine":  # the refiner has no IP-Adapter
        arguments["ip_adapter_image"] = request.image_prompt.image
    make_preview = _preview_maker(engine, pipeline, one) if request.preview else None
    arguments |= steps.callbacks(number, len(generators), pipeline, make_preview)
    accepted = call_arguments(type(pipeline))
    result = pipeline(**{name: value for name, value in arguments.items() if name in accepted and value is not None})
    if one.returns_latents:
        return PassResult([], [], result.images)
    return PassResult(list(result.images), _flags(result))


def _preview_maker(engine: Engine, pipeline: Any, one: Pass) -> MakePreview:
    """What shows the first picture of the batch as it is predicted now."""
    prediction = Prediction()
    watch(pipeline.scheduler, prediction.observe)

    def make_preview() -> Image | None:
        latents = prediction.latents()
        return None if latents is None else engine.previewer.make_preview(latents, one.width, one.height)

    return make_preview


def _flags(result: Any) -> list[bool]:
    """What the safety checker said, under either name that diffusers' pipelines have for it."""
    said = getattr(result, "nsfw_content_detected", None) or getattr(result, "nsfw_detected", None)
    return [bool(one) for one in said] if said else [False] * len(result.images)
