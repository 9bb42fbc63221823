"""Runs one pass: a pipeline with its scheduler, the arguments that every pass has, and callbacks for its steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from worker.engine.drawing import DrawnJob, Item, lap, tell_each
from worker.engine.engine import Engine
from worker.engine.meter import Lookahead
from worker.engine.pipelines import call_arguments
from worker.engine.preview import Prediction
from worker.engine.prompts.phases import Phase, PhaseChanger
from worker.engine.prompts.schedule import list_pass_steps
from worker.engine.scheduling import build_scheduler, watch
from worker.engine.steps import step_callbacks
from worker.models.family import Family
from worker.plan import Pass
from worker.request import Request


@dataclass(frozen=True)
class PassResult:
    """What a pass leaves: pictures, one for each of the batch, or latents of all of them.

    Attributes:
        flagged: what the safety checker said of each; such a picture is black.
        layers: of each, where pictures are split; `images` are the first ones.
        latents: (pictures, channels, rows, columns), if the pass was to return them; there are no images then.
    """

    images: list[Image]
    flagged: list[bool]
    latents: Tensor | None = None
    layers: list[list[Image]] = field(default_factory=list)


def run_pass(
    engine: Engine,
    items: Sequence[Item],
    number: int,
    pipeline: Any,
    arguments: dict[str, Any],
    phases: Sequence[Phase],
    generators: Sequence[torch.Generator],
) -> PassResult:
    """Run pass `number` of the batch's plans.

    Args:
        arguments: of the pipeline's call, those that are the task's own.
        phases: what the prompts say, from step to step.
        generators: one for each picture of the batch.
    """
    plan = items[0].job.plan
    request, one = plan.request, plan.passes[number]
    pipeline.scheduler = build_scheduler(request.scheduler, engine.scheduler_config, engine.schedulers)
    changer = PhaseChanger(phases, list_pass_steps(plan.passes)[number].start, one.num_inference_steps)
    arguments = {**arguments, **phases[0].embeddings, **changer.arguments(pipeline)}
    arguments["generator"] = list(generators) if len(generators) > 1 else generators[0]
    arguments |= _list_arguments(engine.capabilities.family, request, one)
    for runner in engine.runners:
        runner.begin()
    prediction, lookahead = Prediction(), Lookahead(engine.device)
    if any(item.job.plan.request.preview for item in items):
        watch(pipeline.scheduler, prediction.observe)

    def on_step() -> None:
        lookahead.step()
        _count_step(engine, items, number, pipeline, prediction)

    arguments |= step_callbacks(on_step, changer.change)
    accepted = call_arguments(type(pipeline))
    if not {"callback_on_step_end", "callback"} & accepted.keys():  # then the scheduler's steps are those of the pass
        watch(pipeline.scheduler, lambda *_: on_step())
    given = {name: value for name, value in arguments.items() if name in accepted and value is not None}
    given |= _drop_schedule(engine.capabilities.family, request, one.num_inference_steps)
    with engine.writing.asking(lambda: tell_each(items, DrawnJob.check)), engine.decoder_guard.checking():
        result = pipeline(**given, **_replace_sigmas(pipeline, one.num_inference_steps))
    images = (
        result.images if hasattr(result, "images") else result.image
    )  # Kandinsky 5 has its own name for a list of them
    if one.returns_latents:
        return PassResult([], [], images)
    if isinstance(images[0], list):
        return PassResult([one[0] for one in images], _flags(result, len(images)), layers=images)
    return PassResult(list(images), _flags(result, len(images)))


def _list_arguments(family: Family, request: Request, one: Pass) -> dict[str, Any]:
    """Those that the request says by itself, whatever the pass starts from; None for what it leaves to the pipeline."""
    arguments = {
        "guidance_rescale": request.guidance_rescale,
        "true_cfg_scale": request.true_cfg_scale,
        "image_guidance_scale": request.image_guidance_scale,
        "max_sequence_length": request.max_sequence_length,
        **_guide(family, request, one.num_inference_steps),
    }
    if request.image_prompt is not None and one.kind != "refine":  # the refiner has no IP-Adapter
        arguments["ip_adapter_image"] = request.image_prompt.image
    return arguments


def _guide(family: Family, request: Request, steps: int) -> dict[str, Any]:
    """How strongly the prompt is followed, where the pipeline's own schedule does not say it."""
    follows = family.guidance_follows and _keeps_schedule(family, request, steps)
    return {} if family.guidance is None or follows else {family.guidance: request.guidance_scale}


def _drop_schedule(family: Family, request: Request, steps: int) -> dict[str, Any]:
    """Nothing in the place of a schedule that is one for other steps, or another guidance scale."""
    return {} if family.schedule is None or _keeps_schedule(family, request, steps) else {family.schedule: None}


def _replace_sigmas(pipeline: Any, steps: int) -> dict[str, Any]:
    """Evenly spaced sigmas where the model's config has some for another number of steps, which would count."""
    configured = pipeline.config.get("sample_sigmas")
    return {"sigmas": np.linspace(1.0, 1 / steps, steps)} if configured and len(configured) != steps else {}


def _keeps_schedule(family: Family, request: Request, steps: int) -> bool:
    guided = not family.guidance_follows or request.guidance_scale == family.guidance_scale
    return steps == family.steps and guided


def _count_step(engine: Engine, items: Sequence[Item], number: int, pipeline: Any, prediction: Prediction) -> None:
    """Tell each job of the batch."""
    lap(items, "denoise")

    def count(job: DrawnJob) -> None:
        own = [index for index, item in enumerate(items) if item.job is job]
        make_preview = None
        if job.plan.request.preview:
            make_preview = partial(_make_preview, engine, job.plan.passes[number], prediction, own[0])
        job.steps.count(number, len(own), pipeline, make_preview)

    tell_each(items, count)


def _make_preview(engine: Engine, one: Pass, prediction: Prediction, index: int) -> Image | None:
    """What shows this picture of the batch as it is predicted now."""
    latents = prediction.latents()
    return None if latents is None else engine.previewer.make_preview(latents[index:], one.width, one.height)


def _flags(result: Any, count: int) -> list[bool]:
    """What the safety checker said of so many pictures, under either name that diffusers' pipelines have for it."""
    said = getattr(result, "nsfw_content_detected", None) or getattr(result, "nsfw_detected", None)
    return [bool(one) for one in said] if said else [False] * count
