"""job -> Request: what is to be drawn and where it goes, every default filled in, every choice made.

The table of fields is in `fields.py`; this module applies it to one job and one model. Nothing here knows torch.
"""

import difflib
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from worker.errors import InvalidInput
from worker.families import Model
from worker.fields import Fields, Refiner, S3Config, chosen_scheduler, spellings
from worker.schedulers import Scheduler
from worker.settings import Bucket

SEEDS = 2**32
MOST_PROBLEMS = 100  # in one answer; a request has fewer fields than that
_CANONICAL = spellings()


@dataclass(frozen=True)
class Picture:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Refinement:
    """How an SDXL refiner finishes a picture: an ensemble of experts (arXiv:2307.01952, section 2.5).

    Attributes:
        high_noise_frac: share of the noise schedule, above 0 and below 1, that the base model does.
        steps: length of the refiner's whole schedule, of which it does the rest.
    """

    high_noise_frac: float
    steps: int


@dataclass(frozen=True)
class Request:
    """What is to be drawn and where it goes; every default filled in, every choice made.

    Attributes:
        pictures: prompt by prompt, in the order of the answer.
        width, height: pixels, multiples of the family's step.
        format_fixed: True when the caller chose the format, so that it may not change to save bytes.
        bucket: the job's own, from `s3Config`, or the endpoint's.
        warnings: what was changed or ignored, for the caller.
    """

    pictures: tuple[Picture, ...]
    negative_prompt: str | None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: Scheduler
    refinement: Refinement | None
    output_format: Literal["png", "jpeg", "webp"]
    format_fixed: bool
    quality: int
    delivery: Literal["auto", "base64", "s3"]
    bucket: Bucket | None
    warnings: tuple[str, ...]


def parse(job: Mapping[str, Any], model: Model, bucket: Bucket | None = None) -> Request:
    """What this job asks of this model.

    Args:
        bucket: the endpoint's own, for jobs that bring none.

    Raises:
        InvalidInput: lists every bad field with what came and what is allowed.
    """
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidInput([f"input: got {_shown(given)}; should be an object of fields"])
    nulls = [name for name, value in given.items() if value is None and name in _CANONICAL]
    present = {name: value for name, value in given.items() if name not in nulls}
    problems: list[str] = []
    fields = None
    try:
        fields = Fields.model_validate(present, context=model)
    except ValidationError as error:
        problems += _explain(error, present)
    try:
        bucket = _bucket(job.get("s3Config")) or bucket
    except ValidationError as error:
        problems += [f"s3Config.{_where(detail)}: {detail['msg']}" for detail in error.errors()]
    if fields is not None and fields.delivery == "s3" and bucket is None:
        problems.append("delivery: got 's3', but neither the endpoint (BUCKET_*) nor the job (s3Config) names a bucket")
    if fields is None or problems:
        raise InvalidInput(problems)
    warnings = [f"{name}: null was read as left out" for name in nulls if name != "seed"]
    return _resolve(fields, model, bucket, warnings)


def _resolve(fields: Fields, model: Model, bucket: Bucket | None, warnings: list[str]) -> Request:
    width = _rounded("width", fields.width or model.width, model, warnings)
    height = _rounded("height", fields.height or model.height, model, warnings)
    scheduler = chosen_scheduler(fields.scheduler, model)
    steps = fields.num_inference_steps or max(scheduler.min_steps, min(model.family.steps, model.max_steps))
    guidance = fields.guidance_scale if fields.guidance_scale is not None else model.family.guidance_scale
    return Request(
        pictures=_pictures(fields),
        negative_prompt=fields.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        refinement=_refinement(fields, model, steps),
        output_format=fields.output_format,
        format_fixed="output_format" in fields.model_fields_set,
        quality=fields.quality,
        delivery=fields.delivery,
        bucket=bucket,
        warnings=(*warnings, *_ignored(fields, model), *([scheduler.caveat] if scheduler.caveat else [])),
    )


def _rounded(name: str, side: int, model: Model, warnings: list[str]) -> int:
    step = model.family.size_step
    rounded = math.floor(side / step) * step
    if rounded != side:
        warnings.append(f"{name}: {side} was rounded to {rounded}, a multiple of {step}")
    return rounded


def _pictures(fields: Fields) -> tuple[Picture, ...]:
    prompts = [prompt for prompt in fields.prompt for _ in range(fields.num_images)]
    if isinstance(fields.seed, list):
        seeds = [_seed(seed) for seed in fields.seed]
    else:
        first = _seed(fields.seed)
        seeds = [(first + i) % SEEDS for i in range(len(prompts))]
    return tuple(Picture(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True))


def _seed(seed: int | None) -> int:
    return secrets.randbelow(SEEDS) if seed is None or seed == -1 else seed % SEEDS


def _refinement(fields: Fields, model: Model, steps: int) -> Refinement | None:
    """The refiner's part; with a refiner loaded, jobs that do not mention it use it as well."""
    nested = fields.refiner or Refiner()
    frac = nested.high_noise_frac or fields.high_noise_frac or 0.8
    if not model.refiner or frac == 1:
        return None
    return Refinement(frac, nested.steps or fields.refiner_inference_steps or steps)


_WITHOUT_EFFECT = {
    "strength": "has no effect without an image",
    "lora_scale": "has no effect without a LoRA",
}
_REFINER = dict.fromkeys(
    ("refiner", "high_noise_frac", "refiner_inference_steps"), "has no effect; this endpoint has no refiner"
)


def _ignored(fields: Fields, model: Model) -> list[str]:
    without_effect = _WITHOUT_EFFECT if model.refiner else _WITHOUT_EFFECT | _REFINER
    notes = [f"{name}: {why}" for name, why in without_effect.items() if name in fields.model_fields_set]
    if fields.guidance_scale is not None and model.family.guidance is None:
        notes.append(f"guidance_scale: has no effect; {model.family.title} has its guidance built in")
    if fields.nsfw:
        notes.append("nsfw: has no effect; the endpoint's owner decides about the safety checker")
    return notes


def _bucket(s3_config: object) -> Bucket | None:
    if s3_config is None:
        return None
    given = S3Config.model_validate(s3_config)
    return Bucket(given.endpointUrl, given.bucketName, SecretStr(given.accessId), SecretStr(given.accessSecret))


def _explain(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    """One sentence for each bad field; the variants that pydantic tries for one value become one sentence."""
    sentences: dict[str, list[str]] = {}
    for detail in error.errors()[:MOST_PROBLEMS]:
        sentences.setdefault(_sentence_start(detail, given), []).append(_allowed(detail, given))
    listed = [f"{start}{' or '.join(dict.fromkeys(rest))}" for start, rest in sentences.items()]
    more = error.error_count() - MOST_PROBLEMS
    return [*listed, f"and {more} more problems"] if more > 0 else listed


# A default that does not fit is told under the field that made it so.
_MADE_BY = {"height": "width", "num_images": "prompt"}


def _sentence_start(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    name = str((*detail["loc"], "input")[0])[:80]  # a name that is no Unicode has no place of its own
    if detail["type"] == "missing":
        return f"{name}: "
    if name in _MADE_BY and name not in given:
        name = _MADE_BY[name]
        return f"{name}: got {_shown(given.get(name))}; "
    value = given.get(name, detail["input"])
    return f"{_where(detail)[:80] if isinstance(value, dict) else name}: got {_shown(detail['input'])}; "


def _allowed(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    if detail["type"] == "missing":
        return "required, but missing"
    if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
        return _unknown(str(detail["loc"][0]), given)
    message = detail["msg"]
    return message if detail["type"] == "not_allowed" else message[0].lower() + message[1:]


def _unknown(name: str, given: Mapping[str, Any]) -> str:
    if name in _CANONICAL:  # a second spelling of a field that is given already
        twin = next(other for other in given if other != name and _CANONICAL.get(other) == _CANONICAL[name])
        return f"means the same as {twin}; give one of them"
    close = difflib.get_close_matches(name, _CANONICAL, n=1, cutoff=0)
    return f"unknown field; the nearest is {close[0]}"


def _where(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in detail["loc"]) or "input"


def _shown(value: object) -> str:
    """What came, short enough to read and never a flood."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
