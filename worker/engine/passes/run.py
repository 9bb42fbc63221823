"""Runs one pass: a pipeline with its scheduler, the arguments that every pass has, and callbacks for its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from worker.engine.drawing import Item, jobs_of, lap
from worker.engine.engine import Engine
from worker.engine.meter import Lookahead
from worker.engine.pipelines import call_arguments
from worker.engine.preview import Prediction
from worker.engine.prompts.phases import Phase, PhaseChanger
from worker.engine.prompts.schedule import list_pass_steps
from worker.engine.scheduling import build_scheduler, watch
from worker.engine.steps import step_callbacks
from worker.plan import Pass


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
    request, one, guidance = plan.request, plan.passes[number], engine.capabilities.family.guidance
    pipeline.scheduler = build_scheduler(request.scheduler, engine.scheduler_config, engine.schedulers)
    changer = PhaseChanger(phases, list_pass_steps(plan.passes)[number].start, one.num_inference_steps)
    arguments = {**arguments, **phases[0].embeddings, **changer.arguments(pipeline)}
    arguments |= {"generator": list(generators), "guidance_rescale": request.guidance_rescale}
    arguments |= {"true_cfg_scale": request.true_cfg_scale, "max_sequence_length": request.max_sequence_length}
    if guidance:
        arguments[guidance] = request.guidance_scale
    if request.image_prompt is not None and one.kind != "refine":  # the refiner has no IP-Adapter
        arguments["ip_adapter_image"] = request.image_prompt.image
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
    result = pipeline(**{name: value for name, value in arguments.items() if name in accepted and value is not None})
    if one.returns_latents:
        return PassResult([], [], result.images)
    return PassResult(list(result.images), _flags(result))


def _count_step(engine: Engine, items: Sequence[Item], number: int, pipeline: Any, prediction: Prediction) -> None:
    """Tell each job of the batch; one that wants no more is left out of what comes after.

    Raises:
        Exception: what the last one raised, if none wants more.
    """
    lap(items, "denoise")
    jobs = jobs_of(items)
    for job in jobs:
        if job.error is not None:
            continue
        own = [index for index, item in enumerate(items) if item.job is job]
        try:
            make_preview = None
            if job.plan.request.preview:
                make_preview = partial(_make_preview, engine, job.plan.passes[number], prediction, own[0])
            job.steps.count(number, len(own), pipeline, make_preview)
        except Exception as error:
            if len(jobs) == 1:
                raise
            job.error = error
    if all(job.error is not None for job in jobs):
        raise jobs[-1].error  # type: ignore[misc]


def _make_preview(engine: Engine, one: Pass, prediction: Prediction, index: int) -> Image | None:
    """What shows this picture of the batch as it is predicted now."""
    latents = prediction.latents()
    return None if latents is None else engine.previewer.make_preview(latents[index:], one.width, one.height)


def _flags(result: Any) -> list[bool]:
    """What the safety checker said, under either name that diffusers' pipelines have for it."""
    said = getattr(result, "nsfw_content_detected", None) or getattr(result, "nsfw_detected", None)
    return [bool(one) for one in said] if said else [False] * len(result.images)
