"""Trials: what a request puts together, drawn at the smallest size, to find out whether the model can do it at all.

The story is the same at start, where what the owner has set is tried, and after a job that has failed in a way that
nobody foresaw: is it the parts that do not go together, the size, the steps, or nothing of the request's?
"""

from collections.abc import Iterator
from dataclasses import replace

from worker.clock import CLOCK
from worker.engine.device_errors import is_device_fault, is_out_of_memory
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.engine.recovery import release_exception_memory
from worker.engine.steps import MakePreview
from worker.errors import InvalidInputError, JobTimeoutError, NonFiniteOutputError, OutOfMemoryError
from worker.models.capabilities import Capabilities
from worker.plan import make_plan
from worker.request import SELF_TEST_SIDE, InitImage, Picture, Request

MAX_TRIAL_S = 10.0  # of one; looked at after each step
MAX_SEARCH_S = 30.0  # of all that are made for one failure
_FORESEEN = (JobTimeoutError, NonFiniteOutputError, OutOfMemoryError)
TRIAL_STEPS = 2  # where a schedule is entered in its middle, or divided


def shrink(request: Request, model: Capabilities) -> Request:
    """The smallest request that puts the same together."""
    step = model.family.size_step
    width, height = (max(step, min(side, SELF_TEST_SIDE) // step * step) for side in (model.width, model.height))
    steps = max(request.scheduler.min_steps, TRIAL_STEPS)
    small = replace(request, pictures=(Picture("", 0),), num_inference_steps=steps, cut=None, warnings=())
    if request.hires is not None:
        wide, high = (side * 3 // 2 // step * step for side in (width, height))
        small = replace(small, hires=replace(request.hires, width=wide, height=high, strength=1.0, steps=steps))
    if request.refinement is not None:
        shared = request.refinement.high_noise_frac and 0.5
        small = replace(
            small, refinement=replace(request.refinement, high_noise_frac=shared, strength=1.0, steps=steps)
        )
    if request.init_image is not None:
        small = replace(small, init_image=replace(request.init_image, strength=1.0))
    return _resize(small, width, height)


def _resize(request: Request, width: int, height: int) -> Request:
    """It at another size; the pictures that it brings are stretched."""
    size, init_image = (width, height), request.init_image
    if init_image is not None:
        mask = init_image.mask and init_image.mask.resize(size)
        init_image = replace(init_image, image=init_image.image.resize(size), mask=mask)
    controls = tuple(
        replace(one, image=one.image.resize(size), hole=one.hole and one.hole.resize(size)) for one in request.controls
    )
    return replace(request, width=width, height=height, init_image=init_image, controls=controls)


def attempt(engine: Engine, request: Request, max_seconds: float = MAX_TRIAL_S) -> Exception | None:
    """What goes wrong when this is drawn, unforeseen; None if nothing does, or nothing that concerns the request.

    Running out of memory or of time, and numbers that are none, are no sign that it cannot be drawn.

    Raises:
        Exception: the device has failed.
    """
    error = find_error(engine, request, max_seconds)
    foreseen = error is None or isinstance(error, _FORESEEN) or is_out_of_memory(error)
    return None if foreseen else error


def find_error(engine: Engine, request: Request, max_seconds: float) -> Exception | None:
    """What goes wrong when this is drawn, foreseen or not; the engine is then as it was. None if nothing does.

    Raises:
        Exception: the device has failed.
    """
    try:
        generate(engine, make_plan(request), _look, CLOCK.running_time() + max_seconds)
    except Exception as error:
        if is_device_fault(error):
            raise
        release_exception_memory(error)
        engine.repair()
        return error
    return None


def _look(_: int, __: int, make_preview: MakePreview | None) -> None:
    if make_preview is not None:
        make_preview()


def explain(engine: Engine, request: Request) -> InvalidInputError | None:
    """Why a request that has failed, unforeseen, will fail again; None if nothing of it can be named.

    What cannot be put together is remembered, and refused from now on before anything of it is drawn.

    Raises:
        Exception: the device has failed.
    """
    ends = CLOCK.running_time() + MAX_SEARCH_S
    model = engine.capabilities
    small = shrink(request, model)
    if attempt(engine, small) is None:
        return _explain_numbers(engine, request, small)
    tries = [(name, without) for name, without in _without_each(small, model) if without.task in model.tasks]
    names = [name for name, _ in tries]
    for name, without in tries:
        if CLOCK.running_time() < ends and attempt(engine, without) is None:
            if attempt(engine, small) is None:
                return None  # it was no fault of this
            names = [name, *(other for other in names if other != name)]
            break
    if not names:
        return None
    beside = f" together with {', '.join(names[1:])}" if len(names) > 1 else ""
    problem = f"{names[0]}: this model cannot draw it{beside}; leave it out"
    engine.refusals.remember(request, problem)
    return InvalidInputError([problem])


def _explain_numbers(engine: Engine, request: Request, small: Request) -> InvalidInputError | None:
    """What is put together can be drawn, so that it may be the size, or the number of steps."""
    width, height = request.width, request.height
    if (width, height) != (small.width, small.height) and attempt(engine, _resize(small, width, height)):
        return InvalidInputError([f"width: this model cannot draw {width}x{height}; ask for another size"])
    steps = request.num_inference_steps
    sources = replace(small, num_inference_steps=steps, init_image=_take_strength(small, request))
    if attempt(engine, sources):
        return InvalidInputError([f"num_inference_steps: this model cannot draw in {steps} steps so; ask for more"])
    return None


def _take_strength(small: Request, request: Request) -> InitImage | None:
    if small.init_image is None or request.init_image is None:
        return None
    return replace(small.init_image, strength=request.init_image.strength)


def _without_each(request: Request, model: Capabilities) -> Iterator[tuple[str, Request]]:
    """Each field of a request that could be left out, and the request without it."""
    source = request.init_image
    if request.preview:
        yield "preview", replace(request, preview=False)
    if request.image_prompt is not None:
        yield "ip_adapter", replace(request, image_prompt=None)
    if request.controls:
        yield "controlnet", replace(request, controls=())
    if request.loras:
        yield "loras", replace(request, loras=())
    if request.hires is not None:
        yield "hires", replace(request, hires=None)
    if request.refinement is not None:
        yield "refiner", replace(request, refinement=None)
    if request.clip_skip is not None:
        yield "clip_skip", replace(request, clip_skip=None)
    if request.guidance_rescale is not None:
        yield "guidance_rescale", replace(request, guidance_rescale=None)
    if request.true_cfg_scale is not None:
        yield "true_cfg_scale", replace(request, true_cfg_scale=None)
    if request.image_guidance_scale is not None:
        yield "image_guidance_scale", replace(request, image_guidance_scale=None)
    if request.max_sequence_length is not None:
        yield "max_sequence_length", replace(request, max_sequence_length=None)
    if request.scheduler != model.scheduler:
        steps = max(request.num_inference_steps, model.scheduler.min_steps)
        yield "scheduler", replace(request, scheduler=model.scheduler, num_inference_steps=steps)
    if source is not None and source.mask is not None:
        yield "mask", replace(request, init_image=replace(source, mask=None))
    if source is not None:
        yield "image", replace(request, init_image=None)
    if len(request.references) > 1:
        yield "images", replace(request, references=request.references[:1])
