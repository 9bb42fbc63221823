"""The table of request fields: names, aliases, bounds and what each is for.

Validation, error texts, the README's table and the JSON schema all come from this one declaration. Bounds that depend
on the loaded model are checked against the `Model` that the validation is given as its context. Nothing here knows
what is done with a field afterwards.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from worker import schedulers
from worker.families import Model
from worker.schedulers import Scheduler


def _problem(message: str) -> PydanticCustomError:
    return PydanticCustomError("not_allowed", "{message}", {"message": message})


def _refuse(value: object) -> object:
    raise _problem("not supported by this worker; leave it out")


def _prompts(value: object) -> object:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=5_000)]
Prompts = Annotated[
    list[Text],
    Field(min_length=1),
    BeforeValidator(_prompts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
Unsupported = Annotated[Any, AfterValidator(_refuse)]


def _also(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Refiner(BaseModel):
    """How an SDXL refiner would finish the picture."""

    model_config = ConfigDict(extra="forbid", strict=True)
    high_noise_frac: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1, le=500)


class S3Config(BaseModel):
    """The caller's own bucket, in RunPod's shape, given beside `input`."""

    model_config = ConfigDict(extra="ignore", strict=True)
    accessId: str = Field(min_length=1)
    accessSecret: str = Field(min_length=1)
    bucketName: str = Field(min_length=1)
    endpointUrl: str = Field(pattern="^https?://")


class Fields(BaseModel):
    """The fields of `job["input"]`, as callers write them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Prompts = Field(description="what to draw; a list draws several prompts in one job")
    negative_prompt: Text | None = Field(None, description="what not to draw")
    num_images: int = Field(
        1,
        ge=1,
        validate_default=True,
        validation_alias=_also("num_images", "num_images_per_prompt", "num_outputs", "batch_size"),
        description="pictures for each prompt",
    )
    width: int | None = Field(None, ge=64, le=8192, description="in pixels; the model's native size if left out")
    height: int | None = Field(
        None,
        ge=64,
        le=8192,
        validate_default=True,
        description="in pixels; the model's native size if left out",
    )
    scheduler: Text | None = Field(
        None,
        validation_alias=_also("scheduler", "sampler_name"),
        description="by name or diffusers class name; the model's default if left out",
    )
    num_inference_steps: int | None = Field(
        None,
        ge=1,
        validation_alias=_also("num_inference_steps", "steps"),
        description="denoising steps; the family's default if left out",
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=50,
        allow_inf_nan=False,
        validation_alias=_also("guidance_scale", "cfg_scale"),
        description="how strongly to follow the prompt; the family's default if left out",
    )
    seed: int | list[int | None] | None = Field(
        None, description="the first picture's seed (the next counts up), or a list, one each; -1 or null: random"
    )
    output_format: Literal["png", "jpeg", "webp"] = Field("png", description="file format of the pictures")
    quality: int = Field(90, ge=1, le=100, description="of jpeg and webp")
    delivery: Literal["auto", "base64", "s3"] = Field(
        "auto", description="how pictures are returned; auto: the bucket if there is one, else base64"
    )
    safety_checker: bool | None = Field(None, description="true: insist on the safety checker")
    nsfw: bool = Field(False, description="accepted for other workers' clients; has no effect")
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        validation_alias=_also("strength", "prompt_strength", "denoising_strength"),
        description="how far image to image moves from the picture; has no effect without one",
    )
    lora_scale: float | None = Field(
        None, ge=-10, le=10, allow_inf_nan=False, description="weight of `lora`; has no effect without one"
    )
    refiner: Refiner | None = Field(
        None, description="where the refiner takes over (share of the noise schedule; 1: never) and in how many steps"
    )
    high_noise_frac: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="short for `refiner.high_noise_frac`"
    )
    refiner_inference_steps: int | None = Field(None, ge=1, le=500, description="short for `refiner.steps`")
    image: Unsupported = Field(
        None, validation_alias=_also("image", "image_url", "init_image"), description="not supported yet"
    )
    mask: Unsupported = Field(
        None, validation_alias=_also("mask", "mask_url", "mask_image"), description="not supported yet"
    )
    loras: Unsupported = Field(None, validation_alias=_also("loras", "lora"), description="not supported yet")
    controlnet: Unsupported = Field(None, description="not supported yet")
    ip_adapter: Unsupported = Field(None, description="not supported yet")
    clip_skip: Unsupported = Field(None, description="not supported yet")
    hires: Unsupported = Field(None, description="not supported yet")
    preview: Unsupported = Field(None, description="not supported yet")
    replay: Unsupported = Field(None, description="not supported yet")

    # What follows depends on the loaded model, handed in as the validation context. A validator sees the fields
    # above its own, so each check stands at the last field it needs, and all problems come in one answer.

    @field_validator("negative_prompt")
    @classmethod
    def _negative(cls, value: str | None, info: ValidationInfo[Model]) -> str | None:
        if value and not info.context.family.negative_prompt:
            raise _problem(f"{info.context.family.title} takes no negative prompt; leave it out")
        return value

    @field_validator("num_images")
    @classmethod
    def _count(cls, value: int, info: ValidationInfo[Model]) -> int:
        prompts, limit = len(info.data.get("prompt", [""])), info.context.max_images
        if prompts * value > limit:
            raise _problem(f"a job may ask for {limit} pictures at most, here for {prompts} prompts")
        return value

    @field_validator("height")
    @classmethod
    def _area(cls, value: int | None, info: ValidationInfo[Model]) -> int | None:
        model = info.context
        width, height = info.data.get("width") or model.width, value or model.height
        if width * height > model.max_pixels:
            raise _problem(f"width times height may be at most {model.max_pixels} pixels, {width}x{height} is more")
        return value

    @field_validator("scheduler")
    @classmethod
    def _scheduler(cls, value: str | None, info: ValidationInfo[Model]) -> str | None:
        model = info.context
        limits = model.scheduler, model.family.noise, model.prediction_type
        row = schedulers.find(value, model.scheduler) if value is not None else model.scheduler
        if row is None or not schedulers.usable(row, *limits):
            raise _problem(f"{model.family.title} takes one of {', '.join(schedulers.names(*limits))}")
        return value

    @field_validator("num_inference_steps")
    @classmethod
    def _steps(cls, value: int | None, info: ValidationInfo[Model]) -> int | None:
        model = info.context
        row = chosen_scheduler(info.data.get("scheduler"), model)
        if value is not None and not row.min_steps <= value <= model.max_steps:
            raise _problem(f"{row.name} takes {row.min_steps} to {model.max_steps} steps")
        return value

    @field_validator("seed")
    @classmethod
    def _seeds(cls, value: int | list[int | None] | None, info: ValidationInfo[Model]) -> int | list[int | None] | None:
        countable = "prompt" in info.data and "num_images" in info.data
        pictures = len(info.data["prompt"]) * info.data["num_images"] if countable else 1
        if isinstance(value, list) and countable and len(value) != pictures:
            raise _problem(f"a list of seeds needs one for each of the {pictures} pictures")
        for seed in value if isinstance(value, list) else [value]:
            if seed is not None and not -1 <= seed < 2**64:
                raise _problem("a seed is -1 for random, or from 0 to 2^64 - 1, of which 2^32 differ")
        return value

    @field_validator("high_noise_frac", "refiner_inference_steps")
    @classmethod
    def _refiner(cls, value: float | None, info: ValidationInfo[Model]) -> float | None:
        if value is not None and info.data.get("refiner") is not None:
            raise _problem("stands in refiner already; give one of them")
        return value

    @field_validator("safety_checker")
    @classmethod
    def _safety(cls, value: bool | None, info: ValidationInfo[Model]) -> bool | None:
        if value is not None and value != info.context.safety_checker:
            state = "on" if info.context.safety_checker else "off or not part of this model"
            raise _problem(f"the endpoint's safety checker is {state}; a job cannot change that")
        return value


def chosen_scheduler(name: str | None, model: Model) -> Scheduler:
    """The scheduler a job names, or the model's default."""
    return (schedulers.find(name, model.scheduler) if name is not None else None) or model.scheduler


def spellings() -> dict[str, str]:
    """Every accepted spelling of a field -> the field's own name."""
    return {
        str(spelling): name
        for name, field in Fields.model_fields.items()
        for spelling in (field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name])
    }
