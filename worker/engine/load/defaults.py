"""What jobs get that name none: the owner's choice where it fits the model, else the family's or the model's own."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from worker.errors import SettingsError
from worker.models import schedulers
from worker.models.capabilities import Capabilities
from worker.models.schedulers import Scheduler
from worker.settings import Settings

log = logging.getLogger("worker")


def apply_defaults(model: Capabilities, settings: Settings) -> Capabilities:
    """The model with the owner's defaults in the place of its own; the log is told what they are now.

    Raises:
        SettingsError: some do not fit this model; each is named.
    """
    scheduler, reason = _choose_scheduler(model, settings)
    width, height = settings.default_sides or (model.width, model.height)
    guidance = settings.default_guidance_scale
    chosen = replace(
        model,
        scheduler=scheduler,
        steps=settings.default_steps or model.steps,
        guidance_scale=model.guidance_scale if guidance is None else guidance,
        negative_prompt=settings.default_negative_prompt,
        width=width,
        height=height,
    )
    if problems := [*_find_problems(chosen, settings)]:
        raise SettingsError("; ".join(problems))
    log.info("defaults of jobs: %s", _describe(chosen, settings, reason))
    return chosen


def _choose_scheduler(model: Capabilities, settings: Settings) -> tuple[Scheduler, str]:
    """The owner's, or the first that can draw the model: its family's, its own, Euler; and why."""
    own, name, family = model.own_scheduler, settings.default_scheduler, model.family.scheduler
    if name is not None:
        row = schedulers.find_scheduler(name, own)
        if row is None or not model.can_use(row):
            allowed = ", ".join(model.list_schedulers())
            raise SettingsError(f"DEFAULT_SCHEDULER: got {name!r}; {model.family.title} takes one of {allowed}")
        return row, "DEFAULT_SCHEDULER"
    choices = [(family, "the family's")] if family else []
    choices += [("own", "the model's own"), ("Euler", "the model's own cannot draw it")]
    rows = [(schedulers.find_scheduler(name, own), reason) for name, reason in choices]
    fitting = ((row, reason) for row, reason in rows if row is not None and model.can_use(row))
    return next(fitting, (own, "the model's own"))


def _find_problems(model: Capabilities, settings: Settings) -> Iterator[str]:
    """What of the owner's defaults, which the model has now, does not fit it."""
    family, (fewest, most) = model.family, model.step_limits(model.scheduler)
    if settings.default_steps is not None and not fewest <= model.steps <= most:
        yield f"DEFAULT_STEPS: got {model.steps}; {model.scheduler.name} takes {fewest} to {most} steps here"
    if settings.default_guidance_scale is not None and family.guidance is None:
        yield f"DEFAULT_GUIDANCE_SCALE: {family.title} has its guidance built in; leave it out"
    if settings.default_negative_prompt is not None and not family.negative_prompt:
        yield f"DEFAULT_NEGATIVE_PROMPT: {family.title} takes no negative prompt; leave it out"
    if settings.default_size is not None:
        came, step = f"DEFAULT_SIZE: got {settings.default_size!r}", family.size_step
        if model.width % step or model.height % step:
            yield f"{came}; width and height should be multiples of {step}"
        if model.width * model.height > model.max_pixels:
            yield f"{came}; width times height may be at most {model.max_pixels}"


def _describe(model: Capabilities, settings: Settings, reason: str) -> str:
    """Each default, and the setting that it comes from."""
    told = [f"scheduler {model.scheduler.name} ({reason})"]
    told.append(f"{model.default_steps(model.scheduler)} steps{' (DEFAULT_STEPS)' if settings.default_steps else ''}")
    if model.family.guidance is not None:
        source = "" if settings.default_guidance_scale is None else " (DEFAULT_GUIDANCE_SCALE)"
        told.append(f"guidance {model.guidance_scale:g}{source}")
    told.append(f"{model.width}x{model.height}{' (DEFAULT_SIZE)' if settings.default_size else ''}")
    if model.negative_prompt:
        told.append(f"a negative prompt of {len(model.negative_prompt)} letters (DEFAULT_NEGATIVE_PROMPT)")
    return ", ".join(told)
