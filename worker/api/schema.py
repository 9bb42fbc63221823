"""The table of request fields: names, aliases, bounds and what each is for.

Validation, error texts, the README's table and the JSON schema all come from this one declaration. What depends on
the loaded model stands in `validators.py`. Nothing here knows what is done with a field afterwards.
"""

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, WithJsonSchema

from worker.api.nested_fields import Controls, HiresField, ImagePromptField, Loras, Reference, RefinerField
from worker.api.validators import Rules


def _prompts(value: object) -> object:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=5_000)]
Prompts = Annotated[
    list[Text],
    Field(min_length=1),
    BeforeValidator(_prompts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


def _also(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Fields(Rules):
    """The fields of `job["input"]`, as callers write them."""

    prompt: Prompts = Field(description="what to draw; a list draws several prompts in one job")
    negative_prompt: Text | None = Field(None, description="what not to draw")
    num_images: int = Field(
        1,
        ge=1,
        validate_default=True,
        validation_alias=_also("num_images", "num_images_per_prompt", "num_outputs", "batch_size"),
        description="pictures for each prompt",
    )
    width: int | None = Field(
        None, ge=64, le=8192, description="in pixels; the image's own or the model's native size if left out"
    )
    height: int | None = Field(
        None,
        ge=64,
        le=8192,
        validate_default=True,
        description="in pixels; the image's own or the model's native size if left out",
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
    image: Reference | None = Field(
        None,
        validation_alias=_also("image", "image_url", "init_image"),
        description="a picture to start from: URL, data URI, base64 or a path on the network volume",
    )
    mask: Reference | None = Field(
        None,
        validation_alias=_also("mask", "mask_url", "mask_image"),
        description="white is drawn anew, black stays as it is; instead of it, parts of `image` may be transparent",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        validation_alias=_also("strength", "prompt_strength", "denoising_strength"),
        description="how far to move from the image; the pipeline's default if left out",
    )
    controlnet: Controls | None = Field(
        None, description="what the picture follows: name, image, scale, start and end (shares of the steps)"
    )
    ip_adapter: ImagePromptField | None = Field(
        None, description="a picture that speaks beside the prompt: image, scale"
    )
    loras: Loras | None = Field(
        None, validation_alias=_also("loras", "lora"), description="LoRAs for this job: names, or name and scale each"
    )
    lora_scale: float | None = Field(
        None, ge=-10, le=10, allow_inf_nan=False, description="scale of the LoRAs that bring none"
    )
    clip_skip: int | None = Field(
        None, ge=1, description="layers of the text encoder to leave out; 1 takes the last but one"
    )
    guidance_rescale: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="against overexposure at high guidance (arXiv:2305.08891)"
    )
    hires: HiresField | None = Field(
        None, description="a second pass over the enlarged picture: scale, strength, steps, upscaler (lanczos, latent)"
    )
    refiner: RefinerField | None = Field(
        None,
        description="SDXL's refiner: high_noise_frac (where in the schedule it takes over; 1: never), or strength (of "
        "a second pass over the finished picture); steps",
    )
    high_noise_frac: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="short for `refiner.high_noise_frac`"
    )
    refiner_inference_steps: int | None = Field(None, ge=1, le=500, description="short for `refiner.steps`")
    output_format: Literal["png", "jpeg", "webp"] = Field("png", description="file format of the pictures")
    quality: int = Field(90, ge=1, le=100, description="of jpeg and webp")
    delivery: Literal["auto", "base64", "s3"] = Field(
        "auto", description="how pictures are returned; auto: the bucket if there is one, else base64"
    )
    preview: bool = Field(False, description="small pictures in the progress updates")
    replay: Reference | None = Field(
        None, description="a picture that this worker made: the same request again; fields beside it override"
    )
    safety_checker: bool | None = Field(None, description="true: insist on the safety checker")
    nsfw: bool = Field(False, description="accepted for other workers' clients; has no effect")


def spellings() -> dict[str, str]:
    """Every accepted spelling of a field -> the field's own name."""
    return {
        str(spelling): name
        for name, field in Fields.model_fields.items()
        for spelling in (field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name])
    }
