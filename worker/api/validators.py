"""What of a request depends on the loaded model: bounds, and whether the model can do what is asked.

The rules stand apart from the table of fields, which inherits them. A rule sees only the fields that the table lists
above its own, so each belongs to the last field it needs, and all problems come in one answer. The model is handed in
as the validation context.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from worker.api.nested_fields import ControlField, HiresField, ImagePromptField, LoraField, RefinerField
from worker.models import schedulers
from worker.models.capabilities import CONTROLLED, IMAGE, MASK, TEXT, Capabilities, task_name
from worker.models.schedulers import Scheduler

MAX_NAMES = 50  # in one answer; a folder of LoRAs may hold thousands
Info = ValidationInfo[Capabilities]
T = TypeVar("T")


def problem(message: str) -> PydanticCustomError:
    """A rule that does not hold; the message says what is allowed."""
    return PydanticCustomError("not_allowed", "{message}", {"message": message})


def _cannot(model: Capabilities, what: str) -> PydanticCustomError:
    return problem(f"{model.family.title} {what}; leave it out")


def choose_scheduler(name: str | None, model: Capabilities) -> Scheduler:
    """The scheduler a job names, or the model's default."""
    return (schedulers.find(name, model.scheduler) if name is not None else None) or model.scheduler


def choose_task(fields: dict[str, Any]) -> str:
    """What a job with these fields asks for."""
    given = {name for name in ("image", "mask", "controlnet") if fields.get(name) is not None}
    return task_name("image" in given, "mask" in given, "controlnet" in given)


class Rules(BaseModel):
    """The rules for the fields of the same names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("negative_prompt", check_fields=False)
    @classmethod
    def _negative(cls, value: str | None, info: Info) -> str | None:
        if value and not info.context.family.negative_prompt:
            raise _cannot(info.context, "takes no negative prompt")
        return value

    @field_validator("num_images", check_fields=False)
    @classmethod
    def _count(cls, value: int, info: Info) -> int:
        prompts, limit = len(info.data.get("prompt", [""])), info.context.max_images
        if prompts * value > limit:
            raise problem(f"a job may ask for {limit} pictures at most, here for {prompts} prompts")
        return value

    @field_validator("height", check_fields=False)
    @classmethod
    def _area(cls, value: int | None, info: Info) -> int | None:
        model = info.context
        width, height = info.data.get("width") or model.width, value or model.height
        if width * height > model.max_pixels:
            raise problem(f"width times height may be at most {model.max_pixels} pixels, {width}x{height} is more")
        return value

    @field_validator("scheduler", check_fields=False)
    @classmethod
    def _scheduler(cls, value: str | None, info: Info) -> str | None:
        model = info.context
        limits = model.scheduler, model.family.noise, model.prediction_type
        row = schedulers.find(value, model.scheduler) if value is not None else model.scheduler
        if row is None or not schedulers.is_usable(row, *limits):
            raise problem(f"{model.family.title} takes one of {', '.join(schedulers.names(*limits))}")
        return value

    @field_validator("num_inference_steps", check_fields=False)
    @classmethod
    def _steps(cls, value: int | None, info: Info) -> int | None:
        model = info.context
        _check_steps(value, choose_scheduler(info.data.get("scheduler"), model), model)
        return value

    @field_validator("seed", check_fields=False)
    @classmethod
    def _seeds(cls, value: int | list[int | None] | None, info: Info) -> int | list[int | None] | None:
        countable = "prompt" in info.data and "num_images" in info.data
        pictures = len(info.data["prompt"]) * info.data["num_images"] if countable else 1
        if isinstance(value, list) and countable and len(value) != pictures:
            raise problem(f"a list of seeds needs one for each of the {pictures} pictures")
        for seed in value if isinstance(value, list) else [value]:
            if seed is not None and not -1 <= seed < 2**64:
                raise problem("a seed is -1 for random, or from 0 to 2^64 - 1, of which 2^32 differ")
        return value

    @field_validator("image", check_fields=False)
    @classmethod
    def _image(cls, value: str | None, info: Info) -> str | None:
        if value is not None and IMAGE not in info.context.tasks:
            raise _cannot(info.context, "cannot start from a picture")
        return value

    @field_validator("mask", check_fields=False)
    @classmethod
    def _mask(cls, value: str | None, info: Info) -> str | None:
        if value is not None and MASK not in info.context.tasks:
            raise _cannot(info.context, "cannot inpaint")
        if value is not None and "image" in info.data and info.data["image"] is None:
            raise problem("needs an image beside it, whose masked part is drawn anew")
        return value

    @field_validator("controlnet", check_fields=False)
    @classmethod
    def _controlnet(cls, value: list[ControlField] | None, info: Info) -> list[ControlField] | None:
        model = info.context
        if value is None:
            return value
        if TEXT + CONTROLLED not in model.tasks:
            raise _cannot(model, "takes no ControlNet")
        if not model.controlnets:
            raise problem("this endpoint has no ControlNet (CONTROLNETS); leave it out")
        task = choose_task({**info.data, "controlnet": value})
        if task not in model.tasks:
            raise problem(f"{model.family.title} takes no ControlNet when {task.removesuffix(CONTROLLED)} is asked for")
        for control in value:
            if control.name is None and len(model.controlnets) > 1:
                raise problem(f"needs a name; this endpoint has {', '.join(model.controlnets)}")
            _check_name(control.name, model.controlnets, "ControlNet")
            if control.start >= control.end:
                raise problem("start must be before end; both are shares of the steps")
        return value

    @field_validator("guidance_rescale", check_fields=False)
    @classmethod
    def _rescale(cls, value: float | None, info: Info) -> float | None:
        return _accepted(value, info, "guidance_rescale", "takes no guidance_rescale")

    @field_validator("ip_adapter", check_fields=False)
    @classmethod
    def _image_prompt(cls, value: ImagePromptField | None, info: Info) -> ImagePromptField | None:
        if value is not None and not info.context.ip_adapter:
            raise problem("this endpoint has no IP-Adapter (IP_ADAPTER); leave it out")
        return _accepted(value, info, "ip_adapter_image", "takes no IP-Adapter")

    @field_validator("clip_skip", check_fields=False)
    @classmethod
    def _clip_skip(cls, value: int | None, info: Info) -> int | None:
        layers = info.context.clip_layers
        if value is not None and not layers:
            raise _cannot(info.context, "has no text encoder whose layers can be skipped")
        if value is not None and value >= layers:
            raise problem(f"the text encoder has {layers} layers, of which 1 to {layers - 1} can be skipped")
        return value

    @field_validator("loras", check_fields=False)
    @classmethod
    def _loras(cls, value: list[LoraField] | None, info: Info) -> list[LoraField] | None:
        for lora in value or []:
            if not info.context.loras:
                raise problem("this endpoint has no LoRA (LORA_DIR, LORA_REPOS); leave it out")
            _check_name(lora.name.removesuffix(".safetensors"), info.context.loras, "LoRA")
        names = [lora.name.removesuffix(".safetensors") for lora in value or []]
        if len(names) > len(set(names)):
            raise problem("each LoRA can be named once")
        return value

    @field_validator("hires", check_fields=False)
    @classmethod
    def _hires(cls, value: HiresField | None, info: Info) -> HiresField | None:
        model = info.context
        if value is None:
            return value
        if IMAGE not in model.tasks:
            raise _cannot(model, "cannot start from a picture, which the second pass needs")
        if value.upscaler == "latent" and not model.latent_upscaling:
            raise problem(f"{model.family.title} has no latents that can be enlarged; use the upscaler lanczos")
        if info.data.get("image") is not None or info.data.get("controlnet") is not None:
            raise problem("goes with a prompt alone, without image or controlnet")
        width, height = ((info.data.get(side) or getattr(model, side)) * value.scale for side in ("width", "height"))
        if width * height > model.max_pixels:
            raise problem(f"the enlarged picture may have {model.max_pixels} pixels, {width:.0f}x{height:.0f} is more")
        _check_steps(value.steps, choose_scheduler(info.data.get("scheduler"), model), model)
        return value

    @field_validator("refiner", check_fields=False)
    @classmethod
    def _refiner_way(cls, value: RefinerField | None, info: Info) -> RefinerField | None:
        if value is not None and None not in (value.high_noise_frac, value.strength):
            raise problem("high_noise_frac shares one schedule, strength starts a second one; give one of them")
        if value is not None and info.context.refiner:
            _check_refiner_steps(value.steps, info.context)
        return value

    @field_validator("high_noise_frac", "refiner_inference_steps", check_fields=False)
    @classmethod
    def _refiner(cls, value: float | None, info: Info) -> float | None:
        if value is not None and info.data.get("refiner") is not None:
            raise problem("stands in refiner already; give one of them")
        if info.field_name == "refiner_inference_steps" and info.context.refiner:
            _check_refiner_steps(value, info.context)
        return value

    @field_validator("preview", check_fields=False)
    @classmethod
    def _preview(cls, value: bool, info: Info) -> bool:
        if value and not info.context.previews:
            raise _cannot(info.context, "cannot be watched while it draws")
        return value

    @field_validator("safety_checker", check_fields=False)
    @classmethod
    def _safety(cls, value: bool | None, info: Info) -> bool | None:
        if value is not None and value != info.context.safety_checker:
            state = "on" if info.context.safety_checker else "off or not part of this model"
            raise problem(f"the endpoint's safety checker is {state}; a job cannot change that")
        return value


def _accepted(value: T, info: Info, argument: str, lack: str) -> T:
    """The value, if the pipeline for what is asked takes the argument at all."""
    task = choose_task(info.data)
    if value is not None and not info.context.accepts(task, argument):
        raise _cannot(info.context, f"{lack} for {task}")
    return value


def _check_steps(steps: int | None, row: Scheduler, model: Capabilities) -> None:
    if steps is not None and not row.min_steps <= steps <= model.max_steps:
        raise problem(f"{row.name} takes {row.min_steps} to {model.max_steps} steps")


def _check_refiner_steps(steps: float | None, model: Capabilities) -> None:
    """The refiner brings a scheduler of its own, so that only the owner's limit counts."""
    if steps is not None and steps > model.max_steps:
        raise problem(f"the refiner takes 1 to {model.max_steps} steps")


def _check_name(name: str | None, known: Sequence[str], kind: str) -> None:
    if name is not None and name not in known:
        more = f" and {len(known) - MAX_NAMES} more" if len(known) > MAX_NAMES else ""
        raise problem(f"there is no {kind} {name[:80]!r}; there are {', '.join(known[:MAX_NAMES])}{more}")
