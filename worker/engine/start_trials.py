"""What the owner has set beside the model, drawn with once at start: what cannot work is named before any job comes.

Each takes one picture of a step or two at the smallest size. What there is no time for is left to its first job.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import PIL.Image
import torch

from worker.clock import CLOCK
from worker.engine.engine import Engine
from worker.engine.trials import TRIAL_STEPS, attempt
from worker.errors import SettingsError
from worker.models.capabilities import CONTROLLED, IMAGE, MASK, TEXT
from worker.models.control_kinds import ControlKind
from worker.request import (
    Control,
    ImagePrompt,
    InitImage,
    Refinement,
    Request,
    make_test_picture,
    self_test_request,
)
from worker.settings import Settings

log = logging.getLogger("worker")

MAX_START_S = 10.0  # after which no further trial begins


@dataclass(frozen=True)
class _Trial:
    """What is tried.

    Attributes:
        name: the setting, and what of it.
        request: draws with it.
        without: the same request without it, to tell whose fault a failure is; None where the model has nothing else.
        fatal: whether there is no use for it if this fails.
    """

    name: str
    request: Request
    without: Request | None
    fatal: bool = True


def try_addons(engine: Engine, settings: Settings) -> None:
    """Draw with everything that the owner has set, as far as there is time.

    Raises:
        SettingsError: one of them cannot work with this model.
    """
    started, done, trials = CLOCK.running_time(), 0, list(_list_trials(engine, settings))
    for trial in trials:
        left = started + MAX_START_S - CLOCK.running_time()
        if left <= 0:
            break
        _try(engine, trial, left)
        done += CLOCK.running_time() < started + MAX_START_S  # else it was stopped
    if trials:
        tried, seconds = ", ".join(one.name for one in trials[:done]), CLOCK.running_time() - started
        log.info("tried in %.1f s: %s", seconds, tried)
    if done < len(trials):
        later = ", ".join(one.name for one in trials[done:])
        log.info("not tried at start, which may take %g s for it, but by their first job: %s", MAX_START_S, later)
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()


def _try(engine: Engine, trial: _Trial, max_seconds: float) -> None:
    error = attempt(engine, trial.request, max_seconds)
    if error is None:
        return
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    if trial.without is not None and attempt(engine, trial.without, max_seconds) is not None:
        log.warning("%s: cannot be tried, as the model cannot draw without it either: %s", trial.name, reason)
    elif attempt(engine, trial.request, max_seconds) is None:
        log.warning("%s: failed at the first trial, and not at the second: %s", trial.name, reason)
    elif trial.fatal:
        raise SettingsError(f"{trial.name}: this model cannot draw with it: {reason}")
    else:
        log.warning("%s: this model cannot draw so, and jobs that ask for it are refused: %s", trial.name, reason)
        engine.refusals.remember(trial.request, f"{trial.name}: this model cannot draw so")


def _list_trials(engine: Engine, settings: Settings) -> Iterator[_Trial]:
    model = engine.capabilities
    plain = replace(self_test_request(model), refinement=None)
    steps = max(plain.num_inference_steps, TRIAL_STEPS)
    longer = replace(plain, num_inference_steps=steps)
    picture = make_test_picture((plain.width, plain.height))
    if settings.vae_name is not None:
        yield _Trial("VAE_NAME", plain, None)
        if IMAGE in model.tasks:
            yield _Trial("image", replace(longer, init_image=InitImage(picture, 1.0, None)), plain, fatal=False)
    if model.refiner:
        yield _Trial("REFINER_NAME", replace(longer, refinement=Refinement(None, 1.0, steps)), plain)
        if model.accepts(TEXT, "denoising_end"):
            yield _Trial("refiner", replace(longer, refinement=Refinement(0.5, 1.0, steps)), plain, fatal=False)
    if model.ip_adapter:
        yield _Trial("IP_ADAPTER", replace(plain, image_prompt=ImagePrompt(picture, 1.0)), plain)
    yield from _list_control_trials(engine, longer, picture)


def _list_control_trials(engine: Engine, plain: Request, picture: PIL.Image.Image) -> Iterator[_Trial]:
    """Each ControlNet alone, and one pair of those that can be followed at once."""
    hole = PIL.Image.new("L", picture.size, 255)
    kinds = {name: engine.capabilities.control_kind(name) for name in engine.controlnets}
    if any(kind.needs_mask for kind in kinds.values()) and MASK + CONTROLLED not in engine.capabilities.tasks:
        name = next(name for name, kind in kinds.items() if kind.needs_mask)
        raise SettingsError(
            f"CONTROLNETS: {name}: it is for inpainting, which this model does without ControlNets only"
        )

    def follow(*names: str) -> Request:
        controls = tuple(_follow(name, kinds[name], picture, hole) for name in names)
        masked = any(one.hole for one in controls)
        return replace(plain, init_image=InitImage(picture, 1.0, hole) if masked else None, controls=controls)

    for name in kinds:
        request = follow(name)
        yield _Trial(f"CONTROLNETS: {name}", request, replace(request, controls=()))
    tried: set[str] = set()
    for first, second in combinations(kinds, 2):
        alike = kinds[first].alike
        if alike == kinds[second].alike and alike not in tried and not kinds[second].alone:
            tried.add(alike)
            request = follow(first, second)
            yield _Trial(f"controlnet: {first} beside {second}", request, replace(request, controls=()), fatal=False)


def _follow(name: str, kind: ControlKind, picture: PIL.Image.Image, hole: PIL.Image.Image) -> Control:
    mode = 0 if kind.modes else None
    return Control(name, picture, 1.0, 0.0, 1.0, mode, hole if kind.needs_mask else None)
