"""What the table of fields cannot say of one field alone: whether the loaded model can do it, and what goes with what.

A rule is a function of the fields that passed the table and of what the model can do. It yields a problem for each
field that may not stay as it is, and ends where it reads a field that failed; `getattr` with a default takes such a
field as left out. Of each field the first problem is told.
"""

import html
from collections.abc import Callable, Iterator, Sequence

from worker.api.controls import (
    check_control_mask,
    check_control_mix,
    check_control_modes,
    check_control_pictures,
    check_own_control,
)
from worker.api.lora_tags import find_lora, list_tag_problems
from worker.api.pictures import (
    check_image,
    check_images,
    check_layers,
    check_mask,
    check_outpaint,
    check_start,
    check_strength,
    refuse,
)
from worker.api.schema import Fields
from worker.api.sources import choose_sources, choose_start
from worker.api.validation_errors import Problem
from worker.images.resize import MAX_SIDE
from worker.models import schedulers
from worker.models.capabilities import CONTROLLED, IMAGE, TEXT, Capabilities
from worker.models.schedulers import Scheduler
from worker.nearest import suggest
from worker.request import remove_tags

MAX_NAMES = 50  # in one answer; a folder of LoRAs may hold thousands
Rule = Callable[[Fields, Capabilities], Iterator[Problem]]


def choose_scheduler(name: str | None, capabilities: Capabilities) -> Scheduler:
    """The scheduler a job names, or the model's default."""
    found = schedulers.find_scheduler(name, capabilities.own_scheduler) if name is not None else None
    return found or capabilities.scheduler


def _check_negative_prompt(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if not fields.negative_prompt or capabilities.family.negative_prompt:
        return
    if not capabilities.accepts(_choose_task(fields, capabilities), "true_cfg_scale"):
        yield refuse("negative_prompt", capabilities, "takes no negative prompt")
    elif (getattr(fields, "true_cfg_scale", None) or 0.0) <= 1:
        yield refuse("negative_prompt", capabilities, "takes no negative prompt without a true_cfg_scale above 1")


def _check_prompts(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    for name, texts in (("prompt", getattr(fields, "prompt", [])), ("negative_prompt", [fields.negative_prompt or ""])):
        read = [reading for text in texts for reading in _list_readings(text)]
        found = next((token for token in capabilities.picture_tokens for text in read if token in text), None)
        if found is not None:
            yield refuse(name, capabilities, f"reads {found.strip()} as a picture")


def _list_readings(text: str) -> Iterator[str]:
    """What a pipeline may be given of a text, and what those make of it that read HTML's names of letters, twice."""
    for given in (text, remove_tags(text)):
        yield from (given, html.unescape(html.unescape(given)))


def _check_true_cfg_scale(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    task = _choose_task(fields, capabilities)
    if fields.true_cfg_scale is None:
        return
    if not capabilities.accepts(task, "true_cfg_scale"):
        yield refuse("true_cfg_scale", capabilities, f"takes no true_cfg_scale for {task}")
    elif fields.true_cfg_scale > 1 and fields.negative_prompt is None:
        yield Problem("true_cfg_scale", "needs a negative_prompt beside it, which it guides away from")


def _check_max_sequence_length(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    limit, asked = capabilities.max_sequence_length, fields.max_sequence_length
    if asked is not None and not limit:
        yield refuse("max_sequence_length", capabilities, "reads prompts as long as it can")
    elif asked is not None and asked > limit:
        yield Problem("max_sequence_length", f"{capabilities.family.title} reads {limit} tokens at most")


def _check_num_images(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    prompts, limit = len(getattr(fields, "prompt", [""])), capabilities.max_images
    layers = capabilities.choose_layers(getattr(fields, "layers", None)) or 1
    asked = prompts * fields.num_images * layers
    if asked > limit:
        field = "num_images" if fields.num_images > 1 else "prompt" if prompts > 1 else "layers"
        of_each = f", for {prompts} prompts" if prompts > 1 else f", of {layers} layers each" if layers > 1 else ""
        # Python writes no numbers of thousands of digits.
        yield Problem(field, f"a job may ask for {limit} pictures at most; this asks for {min(asked, 10**9)}{of_each}")


def _check_size(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if _has_picture(fields) and None in (getattr(fields, "width", None), fields.height):
        return  # the picture's aspect says the other side, and both are made to fit
    width = getattr(fields, "width", None) or capabilities.width
    height = fields.height or capabilities.height
    if width * height > capabilities.max_pixels:
        field = "width" if fields.height is None else "height"
        limit = f"width times height may be at most {capabilities.max_pixels} pixels"
        yield Problem(field, f"{limit}, {width}x{height} is more")


def _has_picture(fields: Fields) -> bool:
    """Whether the job brings a picture whose aspect is drawn."""
    controls = getattr(fields, "controlnet", None) or []
    brought = getattr(fields, "image", None) is not None or bool(getattr(fields, "images", None))
    return brought or any(one.image is not None for one in controls)


def _check_scheduler(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.scheduler is None:
        return
    scheduler = schedulers.find_scheduler(fields.scheduler, capabilities.own_scheduler)
    if scheduler is None or not capabilities.can_use(scheduler):
        names = capabilities.list_schedulers()
        near = suggest(fields.scheduler, names)
        yield Problem("scheduler", f"{capabilities.family.title} takes one of {', '.join(names)}{near}")


def _check_scheduler_for_pictures(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    scheduler = choose_scheduler(fields.scheduler, capabilities)
    started = {"image": choose_sources(fields, capabilities).image, "hires": getattr(fields, "hires", None)}
    for field in (name for name, value in started.items() if value is not None):
        if not scheduler.starts_from_picture:
            yield Problem("scheduler", f"{scheduler.name} cannot start from a picture, as {field} does; take another")


def _check_num_inference_steps(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    yield from _check_steps("num_inference_steps", fields.num_inference_steps, _get_scheduler(fields), capabilities)


def _check_seed(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    seeds = fields.seed if isinstance(fields.seed, list) else [fields.seed]
    if any(seed is not None and not -1 <= seed < 2**64 for seed in seeds):
        yield Problem("seed", "a seed is -1 for random, or from 0 to 2^64 - 1, of which 2^32 differ")
    pictures = len(fields.prompt) * fields.num_images
    if isinstance(fields.seed, list) and len(seeds) != pictures:
        yield Problem("seed", f"a list of seeds needs one for each of the {pictures} pictures")


def _check_controlnet(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.controlnet is None:
        return
    if TEXT + CONTROLLED not in capabilities.tasks:
        yield refuse("controlnet", capabilities, "takes no ControlNet")
    if not capabilities.controlnets:
        yield Problem("controlnet", "this endpoint has no ControlNet (CONTROLNETS); leave it out")
    task = choose_start(fields, capabilities)
    if task + CONTROLLED not in capabilities.tasks:
        yield Problem("controlnet", f"{capabilities.family.title} takes no ControlNet when {task} is asked for")


def _check_each_controlnet(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    names = capabilities.controlnets
    for control in fields.controlnet or []:
        if control.name is None and len(names) > 1:
            yield Problem("controlnet", f"needs a name; this endpoint has {', '.join(names)}")
        if control.name is not None and control.name not in names:
            yield Problem("controlnet", _list_names("ControlNet", control.name, names))
        if control.start >= control.end:
            yield Problem("controlnet", "start must be before end; both are shares of the steps")


def _check_further_guidance(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    task = _choose_task(fields, capabilities)
    for name in ("guidance_rescale", "image_guidance_scale"):
        if getattr(fields, name, None) is not None and not capabilities.accepts(task, name):
            yield refuse(name, capabilities, f"takes no {name} for {task}")


def _check_ip_adapter(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.ip_adapter is not None and not capabilities.ip_adapter:
        yield Problem("ip_adapter", "this endpoint has no IP-Adapter (IP_ADAPTER); leave it out")
    task = _choose_task(fields, capabilities)
    if fields.ip_adapter is not None and not capabilities.accepts(task, "ip_adapter_image"):
        yield refuse("ip_adapter", capabilities, f"takes no IP-Adapter for {task}")


def _check_clip_skip(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    layers = capabilities.clip_layers
    if fields.clip_skip is not None and not layers:
        yield refuse("clip_skip", capabilities, "has no text encoder whose layers can be skipped")
    if fields.clip_skip is not None and fields.clip_skip >= layers:
        skippable = f"1 to {layers - 1} can be skipped"
        yield Problem("clip_skip", f"the text encoder has {layers} layers, of which {skippable}")


def _check_loras(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    names = [find_lora(lora.name, capabilities) for lora in fields.loras or []]
    left_out = [name for name in names if name in capabilities.left_out_loras and name not in capabilities.loras]
    for name in left_out:
        yield Problem("loras", f"the LoRA {name} {capabilities.left_out_loras[name]}")
    if names and not capabilities.loras and not left_out:
        yield Problem("loras", "this endpoint has no LoRA (LORA_DIR, LORA_REPOS); leave it out")
    for name in names:
        if name not in left_out and name not in capabilities.loras:
            yield Problem("loras", _list_names("LoRA", name, capabilities.loras))
    if len(names) > len(set(names)):
        yield Problem("loras", "each LoRA can be named once")


def _check_lora_tags(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    for wrong in list_tag_problems(fields, capabilities):
        yield Problem("prompt", wrong)


def _check_hires(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.hires is None:
        return
    if IMAGE not in capabilities.tasks:
        yield refuse("hires", capabilities, "cannot start from a picture, which the second pass needs")
    if fields.hires.upscaler == "latent" and not capabilities.latent_upscaling:
        lack = "has no latents that can be enlarged; use the upscaler lanczos"
        yield Problem("hires", f"{capabilities.family.title} {lack}")
    if fields.image is not None or fields.images is not None or fields.controlnet is not None:
        yield Problem("hires", "goes with a prompt alone, without image or controlnet")


def _check_hires_size(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    scale = fields.hires.scale if fields.hires else 0.0
    width = (fields.width or capabilities.width) * scale
    height = (fields.height or capabilities.height) * scale
    if width * height > capabilities.max_pixels or max(width, height) > MAX_SIDE:
        limit = f"the enlarged picture may have {capabilities.max_pixels} pixels, and {MAX_SIDE} on a side"
        yield Problem("hires", f"{limit}, {width:.0f}x{height:.0f} is more")


def _check_hires_steps(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.hires is not None:
        yield from _check_steps("hires", fields.hires.steps, _get_scheduler(fields), capabilities)


def _check_refiner(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    given = fields.refiner
    if given is not None and given.high_noise_frac is not None and given.strength is not None:
        ways = "high_noise_frac shares one schedule, strength starts a second one"
        yield Problem("refiner", f"{ways}; give one of them")
    if given is not None:
        yield from _check_refiner_steps("refiner", given.steps, fields, capabilities)


def _check_high_noise_frac(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.high_noise_frac is not None and fields.refiner is not None:
        yield Problem("high_noise_frac", "stands in refiner already; give one of them")


def _check_refiner_inference_steps(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.refiner_inference_steps is not None and fields.refiner is not None:
        yield Problem("refiner_inference_steps", "stands in refiner already; give one of them")
    yield from _check_refiner_steps("refiner_inference_steps", fields.refiner_inference_steps, fields, capabilities)


def _check_preview(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.preview and not capabilities.previews:
        yield refuse("preview", capabilities, "cannot be watched while it draws")


def _check_capabilities(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.capabilities:
        yield Problem("capabilities", "is asked alone, without other fields, and nothing is drawn")


def _check_safety_checker(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    if fields.safety_checker is not None and fields.safety_checker != capabilities.safety_checker:
        state = "on" if capabilities.safety_checker else "off or not part of this model"
        yield Problem("safety_checker", f"the endpoint's safety checker is {state}; a job cannot change that")


RULES: tuple[Rule, ...] = (
    _check_prompts,
    _check_negative_prompt,
    _check_true_cfg_scale,
    _check_max_sequence_length,
    _check_num_images,
    _check_size,
    _check_scheduler,
    _check_scheduler_for_pictures,
    _check_num_inference_steps,
    _check_seed,
    check_image,
    check_images,
    check_layers,
    check_start,
    check_mask,
    check_outpaint,
    check_strength,
    _check_controlnet,
    _check_each_controlnet,
    check_control_modes,
    check_control_pictures,
    check_control_mask,
    check_control_mix,
    check_own_control,
    _check_further_guidance,
    _check_ip_adapter,
    _check_clip_skip,
    _check_loras,
    _check_lora_tags,
    _check_hires,
    _check_hires_size,
    _check_hires_steps,
    _check_refiner,
    _check_high_noise_frac,
    _check_refiner_inference_steps,
    _check_preview,
    _check_capabilities,
    _check_safety_checker,
)


def _choose_task(fields: Fields, capabilities: Capabilities) -> str:
    """What the job asks for, as far as the model can do it."""
    task = choose_start(fields, capabilities)
    follows = getattr(fields, "controlnet", None) is not None and bool(capabilities.controlnets)
    return task + CONTROLLED if follows and task + CONTROLLED in capabilities.tasks else task


def _get_scheduler(fields: Fields) -> str | None:
    name: str | None = getattr(fields, "scheduler", None)
    return name


def _check_steps(field: str, steps: int | None, scheduler: str | None, capabilities: Capabilities) -> Iterator[Problem]:
    row = choose_scheduler(scheduler, capabilities)
    fewest, most = capabilities.step_limits(row)
    if steps is not None and not fewest <= steps <= most:
        yield Problem(field, f"{row.name} takes {fewest} to {most} steps")


def _check_refiner_steps(
    field: str, steps: int | None, fields: Fields, capabilities: Capabilities
) -> Iterator[Problem]:
    if capabilities.refiner:
        yield from _check_steps(field, steps, _get_scheduler(fields), capabilities)


def _list_names(kind: str, name: str, known: Sequence[str]) -> str:
    more = f" and {len(known) - MAX_NAMES} more" if len(known) > MAX_NAMES else ""
    listed = f"{', '.join(known[:MAX_NAMES])}{more}{suggest(name, known)}"
    if "://" in name:
        return f"a job names a {kind} that the endpoint's owner offers, and fetches none; this endpoint has {listed}"
    return f"this endpoint has no {kind} {name[:80]!r}; it has {listed}"
