"""Fields that passed every rule -> the Request: every default filled in, every choice made, each picture fitted."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL.Image import Image

from worker.api.lora_tags import list_tag_notes, merge_loras, uses_default_scale
from worker.api.schema import Fields, RefinerField
from worker.api.sources import Sources, choose_sources
from worker.api.start_pictures import Start, fill_transparency, read_references, read_start
from worker.api.validators import choose_scheduler
from worker.errors import InvalidInputError
from worker.images.load import PictureRules, read_picture
from worker.images.masks import has_white
from worker.images.resize import (
    SizeLimits,
    choose_edit_size,
    choose_size,
    fit_image,
    flatten,
)
from worker.models.capabilities import CONTROLLED, TEXT, Capabilities, task_name
from worker.output.options import Bucket, OutputOptions
from worker.plan import Plan, make_plan
from worker.request import Control, Hires, ImagePrompt, InitImage, Picture, Refinement, Request

SEEDS = 2**32
# The image encoder's processor scales the shorter side to 224 pixels before it cuts the middle out.
MAX_ASPECT = 16

Size = tuple[int, int]  # width and height in pixels


def resolve(fields: Fields, capabilities: Capabilities, rules: PictureRules, warnings: list[str]) -> Request:
    """What is to be drawn; fetches the pictures that the fields name.

    Args:
        rules: which pictures a job may bring.
        warnings: what has been said so far; what is changed here is added.

    Raises:
        InvalidInputError: a picture cannot be had, or what is asked for is nothing.
    """
    family = capabilities.family
    sources = choose_sources(fields, capabilities)
    brought = _read_pictures(sources, fields, capabilities, rules, warnings)
    image, mask, followed, size = brought.start.image, brought.start.mask, brought.followed, brought.size
    scheduler = choose_scheduler(fields.scheduler, capabilities)
    steps = fields.num_inference_steps or capabilities.default_steps(scheduler)
    task = task_name(image is not None, mask is not None, bool(followed), sources.edits)
    init_image = None
    if image is not None:
        strength = _resolve_strength(fields.strength, capabilities.tasks[task], steps)
        if not capabilities.accepts(task, "strength"):
            strength = 1.0
        init_image = _make_init_image(fields, image, mask, strength, size, warnings)
    request = Request(
        pictures=_list_pictures(fields),
        negative_prompt=_choose_negative_prompt(fields, capabilities),
        width=size[0],
        height=size[1],
        num_inference_steps=steps,
        guidance_scale=capabilities.guidance_scale if fields.guidance_scale is None else fields.guidance_scale,
        scheduler=scheduler,
        init_image=init_image,
        references=brought.references,
        layers=capabilities.choose_layers(fields.layers),
        controls=_make_controls(fields, followed, init_image, size, capabilities, warnings),
        image_prompt=_read_image_prompt(fields, rules, warnings),
        loras=merge_loras(fields, capabilities),
        clip_skip=fields.clip_skip,
        guidance_rescale=fields.guidance_rescale,
        true_cfg_scale=fields.true_cfg_scale,
        image_guidance_scale=fields.image_guidance_scale,
        max_sequence_length=fields.max_sequence_length,
        hires=_resolve_hires(fields, size, steps, family.size_step, warnings),
        refinement=_resolve_refinement(fields, task, steps, capabilities, warnings),
        preview=fields.preview,
        outpaint=brought.start.outpaint,
        cut=brought.start.cut,
    )
    ignored = _list_ignored(fields, make_plan(request), capabilities)
    return replace(request, warnings=(*warnings, *ignored, *filter(None, [scheduler.caveat])))


@dataclass(frozen=True)
class _Brought:
    """The pictures of a job, and the size of what is drawn.

    Attributes:
        followed: by a ControlNet each; None for one that follows the picture which is started from.
    """

    start: Start
    references: tuple[Image, ...]
    followed: Sequence[Image | None]
    size: Size


def _read_pictures(
    sources: Sources, fields: Fields, capabilities: Capabilities, rules: PictureRules, warnings: list[str]
) -> _Brought:
    start = read_start(sources, fields, capabilities, rules, warnings)
    references = read_references(sources, capabilities, rules, warnings)
    followed = [
        None if one.image is None else read_picture(f"controlnet.{i}.image", one.image, rules)
        for i, one in enumerate(fields.controlnet or [])
    ]
    step = capabilities.family.size_step
    limits = SizeLimits(capabilities.width, capabilities.height, capabilities.max_pixels, step)
    if not sources.edits:
        first = start.image or next(filter(None, followed), None)
        size = choose_size(fields.width, fields.height, first, limits, warnings)
        return _Brought(start, references, followed, size)
    size = choose_edit_size(fields.width, fields.height, references[0], limits, warnings)
    if capabilities.editing is not None and capabilities.editing.drawn_over:
        named = zip(sources.references, references, strict=True)
        references = tuple(fit_image(source.field, one, size, warnings) for source, one in named)
    return _Brought(start, references, followed, size)


def _resolve_strength(given: float | None, arguments: Mapping[str, object], steps: int) -> float:
    """The job's, or else the pipeline's default, but for one step at least."""
    default = arguments.get("strength")
    least = _find_least_strength(steps)
    strength = max(default if isinstance(default, float) else 1.0, least) if given is None else given
    _check_strength("strength", strength, steps)
    return strength


def _make_init_image(
    fields: Fields, image: Image, mask: Image | None, strength: float, size: Size, warnings: list[str]
) -> InitImage:
    transparency_is_mask = mask is not None and fields.mask is None
    opaque = flatten(image) if transparency_is_mask else fill_transparency("image", image, warnings)
    fitted = fit_image("image", opaque, size, warnings)
    if mask is not None:
        mask = fit_image("mask", mask, size, [])
        if not has_white(mask):
            name = "image" if fields.mask is None else "mask"
            raise InvalidInputError([f"{name}: nothing of what is to be drawn anew is left at {_format(size)}"])
    blur = 0 if fields.mask is None and fields.outpaint is None else fields.mask_blur
    inverted = fields.mask is not None and bool(fields.inpainting_mask_invert)
    return InitImage(fitted, strength, mask, transparency_is_mask, blur, inverted)


def _make_controls(
    fields: Fields,
    images: Sequence[Image | None],
    init_image: InitImage | None,
    size: Size,
    capabilities: Capabilities,
    warnings: list[str],
) -> tuple[Control, ...]:
    """What is followed; of an entry without a picture, the job's own image."""
    controls, mask = [], init_image.mask if init_image else None
    for i, (given, image) in enumerate(zip(fields.controlnet or [], images, strict=True)):
        name, field = given.name or capabilities.controlnets[0], f"controlnet.{i}.image"
        kind = capabilities.control_kind(name)
        mode = kind.find_mode(given.mode, name) if kind.modes else None
        if kind.needs_mask and mask is None:
            raise InvalidInputError([f"controlnet: {name} is for inpainting; give a mask beside it"])
        if image is None:
            assert init_image is not None
            fitted = init_image.image
        else:
            fitted = fit_image(field, fill_transparency(field, image, warnings), size, warnings)
        hole = mask if kind.follows_hole(mode) else None
        controls.append(Control(name, fitted, given.scale, given.start, given.end, mode, hole))
    return tuple(controls)


def _read_image_prompt(fields: Fields, rules: PictureRules, warnings: list[str]) -> ImagePrompt | None:
    given, name = fields.ip_adapter, "ip_adapter.image"
    if given is None:
        return None
    image = read_picture(name, given.image, rules)
    if max(image.size) > MAX_ASPECT * min(image.size):
        limit = f"one side may be at most {MAX_ASPECT} times the other"
        raise InvalidInputError([f"{name}: got {_format(image.size)}; {limit}"])
    return ImagePrompt(fill_transparency(name, image, warnings), given.scale)


def _list_pictures(fields: Fields) -> tuple[Picture, ...]:
    prompts = [prompt for prompt in fields.prompt for _ in range(fields.num_images)]
    if isinstance(fields.seed, list):
        seeds = [_choose_seed(seed) for seed in fields.seed]
    else:
        first = _choose_seed(fields.seed)
        seeds = [(first + i) % SEEDS for i in range(len(prompts))]
    return tuple(Picture(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True))


def _choose_seed(seed: int | None) -> int:
    return secrets.randbelow(SEEDS) if seed is None or seed == -1 else seed % SEEDS


def _choose_negative_prompt(fields: Fields, capabilities: Capabilities) -> str | None:
    """The job's, which may be none where a picture without one is replayed, or the endpoint's."""
    given = "negative_prompt" in fields.model_fields_set
    return fields.negative_prompt if given else capabilities.negative_prompt


def _resolve_hires(fields: Fields, size: Size, steps: int, size_step: int, warnings: list[str]) -> Hires | None:
    given = fields.hires
    if given is None:
        return None
    exact = [round(side * given.scale, 6) for side in size]
    width, height = (math.floor(side / size_step) * size_step for side in exact)
    if [width, height] != exact:
        warnings.append(f"hires: the second pass is {_format((width, height))}, in multiples of {size_step}")
    steps = given.steps or steps
    chosen = "strength" in given.model_fields_set
    strength = given.strength if chosen else max(given.strength, _find_least_strength(steps))
    _check_strength("hires.strength", strength, steps)
    return Hires(given.scale, width, height, strength, steps, latent=given.upscaler == "latent")


def _resolve_refinement(
    fields: Fields, task: str, first_steps: int, capabilities: Capabilities, warnings: list[str]
) -> Refinement | None:
    """The refiner's part; with a refiner loaded, jobs that do not mention it use it as well."""
    if not capabilities.refiner:
        return None
    given = fields.refiner or RefinerField()
    steps = given.steps or fields.refiner_inference_steps or first_steps
    if given.strength is not None:
        _check_strength("refiner.strength", given.strength, steps)
        return Refinement(None, given.strength, steps)
    high_noise_frac = given.high_noise_frac or fields.high_noise_frac
    if high_noise_frac == 1:
        return None
    if task not in (TEXT, TEXT + CONTROLLED) or not capabilities.accepts(task, "denoising_end"):
        if high_noise_frac is not None or steps != first_steps:
            warnings.append("refiner: has no effect here; refiner.strength refines any picture")
        return None
    return Refinement(high_noise_frac or 0.8, 1.0, steps)


def _list_ignored(fields: Fields, plan: Plan, capabilities: Capabilities) -> list[str]:
    """What the job gives and none of its passes takes."""
    without_effect: dict[str, str] = {}
    if not capabilities.refiner:
        names = "refiner", "high_noise_frac", "refiner_inference_steps"
        without_effect |= dict.fromkeys(names, "has no effect; this endpoint has no refiner")
    if plan.passes[0].strength is None:
        without_effect["strength"] = "has no effect without an image"
    elif not capabilities.accepts(plan.passes[0].task, "strength"):
        without_effect["strength"] = "has no effect; this ControlNet draws what is masked from noise"
    if not uses_default_scale(fields, capabilities):
        without_effect["lora_scale"] = "has no effect without a LoRA that brings no scale"
    notes = list(list_tag_notes(fields, capabilities))
    notes += [f"{name}: {why}" for name, why in without_effect.items() if name in fields.model_fields_set]
    if fields.guidance_scale is not None and capabilities.family.guidance is None:
        notes.append(f"guidance_scale: has no effect; {capabilities.family.title} has its guidance built in")
    scale = plan.request.guidance_scale
    if fields.negative_prompt and capabilities.family.guidance == "true_cfg_scale" and scale <= 1:
        notes.append(f"negative_prompt: has no effect with a guidance_scale of {scale:g}; above 1 it has")
    enlarging = [one.task for one in plan.passes if one.kind == "enlarge"]
    if fields.guidance_rescale and not all(capabilities.accepts(task, "guidance_rescale") for task in enlarging):
        notes.append("guidance_rescale: has no effect on the second pass")
    if fields.nsfw:
        notes.append("nsfw: has no effect; the endpoint's owner decides about the safety checker")
    return notes


def resolve_output(fields: Fields, bucket: Bucket | None) -> OutputOptions:
    """How the pictures are handed over."""
    return OutputOptions(
        format=fields.output_format,
        format_fixed="output_format" in fields.model_fields_set,
        quality=fields.quality,
        delivery=fields.delivery,
        bucket=bucket,
    )


def _check_strength(name: str, strength: float, steps: int) -> None:
    if int(strength * steps) < 1:
        least = _find_least_strength(steps)
        raise InvalidInputError(
            [f"{name}: got {strength:g}; of {steps} steps that rounds to 0 steps; use at least {least:g}"]
        )


def _find_least_strength(steps: int) -> float:
    """The share of the steps that is one, rounded up, so that it is."""
    return math.ceil(10_000 / steps) / 10_000


def _format(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
