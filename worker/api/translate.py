"""Fields as other services write them -> fields of our own, with what is wrong or has no effect told under their names.

Knows what such fields mean here; which there are stands in `elsewhere.py`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from worker.api.elsewhere import ElsewhereFields
from worker.api.schema import Fields, HiresField, RefinerField, spellings
from worker.api.validation_errors import Problem, say_wrong
from worker.api.values import Neutral, Unasked
from worker.images.resize import MAX_SIDE, MIN_SIDE
from worker.models.capabilities import Capabilities

_CANONICAL = spellings()
# AUTOMATIC1111 and the like repeat for the second pass what the first one has.
_REPEATED = {"hr_prompt": "prompt", "hr_negative_prompt": "negative_prompt", "hr_sampler_name": "sampler_name"}
_LISTS = ("loras", "controlnet", "images")  # of which none is as good as left out
_UPSCALERS = {"lanczos": "lanczos", "none": "lanczos"}


@dataclass
class Translation:
    """What other services' fields come to.

    Attributes:
        values: fields of our own; None for one that counts as left out.
        problems: told under the names that came.
        warnings: what has no effect.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, name: str, allowed: str) -> None:
        """What came under this name cannot stay."""
        self.problems.append(Problem(name, allowed))


def drop_unasked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that ask for nothing, or for the same as another one."""
    kept: dict[str, Any] = {}
    known: dict[str, list[object]] = {}
    for name, value in given.items():
        same = known.setdefault(_CANONICAL[name], []) if name in _CANONICAL else []
        if not (_asks_nothing(name, value, given) or any(_is_equal(one, value) for one in same)):
            kept[name] = value
            same.append(value)
    kept = _read_older_name(kept)
    schedule = kept.get("scheduler")
    if "sampler_name" not in kept and isinstance(schedule, str) and schedule.casefold() == "automatic":
        del kept["scheduler"]  # a type of schedule, of no sampler
    return kept


def _read_older_name(given: dict[str, Any]) -> dict[str, Any]:
    """Without AUTOMATIC1111's older name of a sampler where the newer one is given too, which counts there."""
    rest = {name: value for name, value in given.items() if name != "sampler_index"}
    if "sampler_index" in given and "scheduler" in given and "sampler_name" not in given:
        return {**rest, "sampler_name": given["sampler_index"]}
    return rest if "sampler_name" in given else given


def _is_equal(one: object, other: object) -> bool:
    return isinstance(one, (str, int, float)) and type(one) is type(other) and one == other


def _asks_nothing(name: str, value: object, given: Mapping[str, Any]) -> bool:
    own = Fields.model_fields.get(_CANONICAL.get(name, name))
    for rule in own.metadata if own else ():
        if isinstance(rule, Unasked) and rule.asks_nothing(name, value):
            return True
        if isinstance(rule, Neutral) and rule.beside and not _is_given(rule.beside, given):
            return True
    if value == [] and _CANONICAL.get(name) in _LISTS:
        return True
    return (value is None and name in ElsewhereFields.model_fields) or _repeats(name, value, given)


def _repeats(name: str, value: object, given: Mapping[str, Any]) -> bool:
    return name in _REPEATED and _is_equal(given.get(_REPEATED[name]), value)


def _is_given(name: str, given: Mapping[str, Any]) -> bool:
    meant = (name, "images") if name == "image" else (name,)
    values = [value for spelling, value in given.items() if _CANONICAL.get(spelling) in meant]
    return any(value not in (None, False, [], "", "false", "False") for value in values)


def translate(passed: Mapping[str, Any], capabilities: Capabilities) -> Translation:
    """What the fields of other services, among those that passed the table, mean for this model."""
    found = Translation()
    for part in (_translate_size, _translate_count, _translate_hires, _translate_refine, _translate_settings):
        part(passed, capabilities, found)
    _translate_safety(passed, capabilities, found)
    _translate_true_cfg(passed, capabilities, found)
    if passed.get("model") and not is_model_name(passed["model"], capabilities.name):
        found.refuse("model", f"this endpoint draws with {capabilities.name}; leave it out")
    if passed.get("enable_base64_output") and passed.get("delivery") == "s3":
        found.refuse("enable_base64_output", "delivery says otherwise; give one of them")
    elif passed.get("enable_base64_output"):
        found.values["delivery"] = "base64"
    return found


def _translate_size(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    width, height, size = passed.get("width"), passed.get("height"), passed.get("size")
    if size is not None:
        if width not in (None, size[0]) or height not in (None, size[1]):
            return found.refuse("size", "width and height say otherwise; give one of them")
        width, height = size
        found.values.update(width=width, height=height)
    ratio, megapixels = passed.get("aspect_ratio"), passed.get("megapixels")
    if ratio is None and megapixels is None:
        return None
    if (width and height) or (ratio is None and (passed.get("image") or passed.get("images"))):
        return _compare_ratio(width, height, ratio, passed, capabilities, found)
    ratio = ratio or capabilities.width / capabilities.height
    limit = capabilities.max_pixels
    pixels = megapixels * 2**20 if megapixels else min(limit, capabilities.width * capabilities.height)
    sides = _choose_sides(width, height, ratio, pixels, capabilities.family.size_step, None if megapixels else limit)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
        name = "aspect_ratio" if passed.get("aspect_ratio") else "megapixels"
        return found.refuse(name, f"that would be {sides[0]}x{sides[1]}; each side has {MIN_SIDE} to {MAX_SIDE} pixels")
    found.values.update(width=sides[0], height=sides[1])
    return None


def _compare_ratio(
    width: int | None,
    height: int | None,
    ratio: float | None,
    passed: Mapping[str, Any],
    capabilities: Capabilities,
    found: Translation,
) -> None:
    """Width and height say everything already, or the image does: do they say the same?"""
    if passed.get("megapixels") is not None:
        found.warnings.append("megapixels: has no effect beside an image, or a width and height")
    if ratio and width and height and abs(width - height * ratio) > capabilities.family.size_step * max(1, ratio):
        found.refuse("aspect_ratio", f"width and height, {width}x{height}, say otherwise; give one of them")


def _choose_sides(
    width: int | None, height: int | None, ratio: float, pixels: float, step: int, limit: int | None
) -> tuple[int, int]:
    """Width and height in whole steps, of about this ratio and number of pixels, and no more than the limit."""
    exact = math.sqrt(pixels * ratio)
    wanted = (width or (height * ratio if height else exact), height or (width / ratio if width else exact / ratio))
    sides = [given or round(side / step) * step for given, side in zip((width, height), wanted, strict=True)]
    if limit and not (width or height) and sides[0] * sides[1] > limit:
        sides = [math.floor(side / step) * step for side in wanted]
    return sides[0], sides[1]


def _translate_count(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    times = passed.get("n_iter", 1)
    if times > 1 and "num_images" in passed:
        found.values["num_images"] = passed["num_images"] * times


_HIRES = {"scale": "hr_scale", "steps": "hr_second_pass_steps", "upscaler": "hr_upscaler", "strength": "strength"}


def _translate_hires(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    if not passed.get("enable_hr"):
        return None
    if passed.get("hires") is not None:
        return found.refuse("enable_hr", "stands in hires already; give one of them")
    upscaler = _choose_upscaler(passed.get("hr_upscaler"), capabilities, found)
    parts = {part: passed.get(name) for part, name in _HIRES.items()} | {"upscaler": upscaler}
    parts["steps"] = parts["steps"] or None
    try:
        found.values["hires"] = HiresField.model_validate(
            {part: value for part, value in parts.items() if value is not None}
        )
    except ValidationError as error:
        for detail in error.errors():
            part = str(detail["loc"][0])
            found.refuse(_HIRES[part], f"{say_wrong(detail)}, for the second pass")
    if passed.get("image") is None and not passed.get("images"):
        found.values["strength"] = None  # which is the second pass's
    return None


def _choose_upscaler(name: str | None, capabilities: Capabilities, found: Translation) -> str:
    if not name:
        return "latent" if capabilities.latent_upscaling else "lanczos"
    kind = name.strip().casefold()
    if kind.startswith("latent"):
        if kind != "latent" and "bicubic" not in kind:
            found.warnings.append("hr_upscaler: latents are enlarged bicubic, with antialiasing")
        return "latent"
    if kind not in _UPSCALERS:
        found.refuse("hr_upscaler", "write Lanczos or Latent; there are no other upscalers here")
    return _UPSCALERS.get(kind, "lanczos")


def _translate_refine(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    way = passed.get("refine")
    if way is None:
        return
    if passed.get("refiner") is not None:
        found.refuse("refine", "stands in refiner already; give one of them")
    elif not capabilities.refiner:
        if way != "no_refiner":
            found.warnings.append("refine: has no effect; this endpoint has no refiner")
    elif way == "no_refiner":
        found.values.update(refiner=RefinerField(high_noise_frac=1.0), high_noise_frac=None)
        found.values.update(refiner_inference_steps=None)
    elif way == "base_image_refiner":
        steps = passed.get("refiner_inference_steps")
        least = 1 / (steps or passed.get("num_inference_steps") or capabilities.steps)
        # The strength that diffusers' image to image with SDXL has by default, as Replicate's model does.
        refiner = RefinerField(strength=max(0.3, math.ceil(least * 10_000) / 10_000), steps=steps)
        found.values.update(refiner=refiner, high_noise_frac=None)
        found.values.update(refiner_inference_steps=None)


def _translate_settings(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    settings = passed.get("override_settings")
    if settings is None:
        return None
    checkpoint, layers = settings.sd_model_checkpoint, settings.CLIP_stop_at_last_layers
    if checkpoint and not is_model_name(checkpoint, capabilities.name):
        found.refuse(
            "override_settings", f"this endpoint draws with {capabilities.name}; leave sd_model_checkpoint out"
        )
    skipped = (layers or 1) - 1 or None  # counted from the last layer there, from the last but one here
    if layers is None or passed.get("clip_skip") == skipped:
        return None
    if passed.get("clip_skip") is not None:
        return found.refuse("override_settings", "clip_skip says otherwise; give one of them")
    found.values["clip_skip"] = skipped
    return None


def _translate_true_cfg(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    """Where a model has no other guidance, `guidance_scale` is it."""
    given, guidance = passed.get("true_cfg_scale"), passed.get("guidance_scale")
    if given is None or capabilities.family.guidance != "true_cfg_scale":
        return
    if guidance not in (None, given):
        found.refuse("true_cfg_scale", "guidance_scale, which it is here, says otherwise; give one of them")
    found.values.update(guidance_scale=given, true_cfg_scale=None)


def _translate_safety(passed: Mapping[str, Any], capabilities: Capabilities, found: Translation) -> None:
    on = capabilities.safety_checker
    off = {"enable_safety_checker": False, "disable_safety_checker": True}
    for name in [name for name, value in off.items() if passed.get(name) is value and on]:
        found.warnings.append(f"{name}: has no effect; the safety checker stays on, which the endpoint's owner decides")
    if passed.get("enable_safety_checker") and not on:
        found.warnings.append(
            "enable_safety_checker: has no effect; there is no safety checker here, or the owner has switched it off"
        )


def is_model_name(name: str, model: str) -> bool:
    """Whether this names the model, as AUTOMATIC1111 writes it or in full: folder, ending and hash do not count."""
    return _bare(name) in ("", _bare(model))


def _bare(name: str) -> str:
    plain = re.sub(r"\s*\[[0-9a-f]+\]\s*$", "", name.strip()).replace("\\", "/").rstrip("/")
    return plain.rpartition("/")[2].removesuffix(".safetensors").removesuffix(".ckpt").casefold()
