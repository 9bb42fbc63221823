"""The table of request fields, and the objects that some of them hold: names, aliases, bounds, what each is for.

Validation, error texts, the table of docs/api.md and the JSON schema all come from this one declaration. What fields
mean for one another and for the loaded model stands in `validators.py`. The order of the fields means nothing.
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

from worker.api.elsewhere import ElsewhereFields
from worker.api.values import Reference, StrictObject, Text, Unasked
from worker.images.resize import MAX_SIDE
from worker.models.editing import MAX_LAYERS, MAX_REFERENCES
from worker.output.address import BUCKET_NAME, SPECIAL_BUCKETS

MAX_JOB_LORAS = 8
MAX_LORA_SCALE = 10  # either way


class LoraField(StrictObject):
    """A LoRA by name."""

    name: str = Field(min_length=1, max_length=300, validation_alias=AliasChoices("name", "path"))
    scale: float | None = Field(None, ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE, allow_inf_nan=False)


class ControlField(StrictObject):
    """A ControlNet by name, and the picture it follows, as that ControlNet wants it: edges, depth, a pose.

    A union ControlNet is told which of them by its mode. One for inpainting follows the job's own image if left out.
    """

    name: str | None = Field(None, min_length=1, max_length=300)
    image: Reference | None = None
    mode: Annotated[str, Field(min_length=1, max_length=100)] | Annotated[int, Field(ge=0)] | None = None
    scale: float = Field(1.0, ge=0, le=10, allow_inf_nan=False)
    start: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    end: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)


class ImagePromptField(StrictObject):
    """A picture that speaks beside the prompt."""

    image: Reference
    scale: float = Field(1.0, ge=0, le=10, allow_inf_nan=False)


class OutpaintField(StrictObject):
    """How many pixels the picture is drawn on for, beyond each side."""

    left: int = Field(0, ge=0, le=MAX_SIDE)
    right: int = Field(0, ge=0, le=MAX_SIDE)
    top: int = Field(0, ge=0, le=MAX_SIDE)
    bottom: int = Field(0, ge=0, le=MAX_SIDE)


class HiresField(StrictObject):
    """A second pass over the picture, enlarged."""

    scale: float = Field(2.0, gt=1, le=4, allow_inf_nan=False)
    strength: float = Field(0.5, gt=0, le=1, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1, le=500)
    upscaler: Literal["lanczos", "latent"] = "lanczos"


class RefinerField(StrictObject):
    """How an SDXL refiner finishes the picture: from where on in the schedule, or as a second pass of some strength."""

    high_noise_frac: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    strength: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1, le=500)


def _check_plain_bucket(name: str) -> str:
    if name.endswith(SPECIAL_BUCKETS):
        raise PydanticCustomError("bucket", "should be the name of a plain bucket, not of another kind or an alias")
    return name


_Key = Annotated[str, Field(max_length=1_000, pattern="^[ -~]+$")]  # printable ASCII


class S3Config(BaseModel):
    """The caller's own bucket, in RunPod's shape, given beside `input`."""

    model_config = ConfigDict(extra="ignore", strict=True)
    accessId: _Key
    accessSecret: _Key
    bucketName: Annotated[
        # Other kinds of names, ARNs among them, would have another host dialled than the endpoint's.
        Annotated[str, Field(pattern=BUCKET_NAME), AfterValidator(_check_plain_bucket)] | None,
        BeforeValidator(lambda name: None if name == "" else name),
    ] = None
    endpointUrl: str = Field(max_length=1_000, pattern="^https?://[!-~]+$")


def _wrap_text(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _wrap(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _wrap_names(value: object) -> object:
    return [{"name": one} if isinstance(one, str) else one for one in value] if isinstance(value, list) else value


Prompts = Annotated[
    list[Text],
    Field(min_length=1),
    BeforeValidator(_wrap_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
# One may stand alone; a LoRA may be a plain name. Of such validators the last runs first.
Loras = Annotated[
    list[LoraField], Field(min_length=1, max_length=MAX_JOB_LORAS), BeforeValidator(_wrap_names), BeforeValidator(_wrap)
]
Controls = Annotated[list[ControlField], Field(min_length=1, max_length=4), BeforeValidator(_wrap)]


def _take_one(value: object) -> object:
    """The one in a list, as some write it; nothing for none."""
    if not isinstance(value, list) or len(value) == 1:
        return value[0] if isinstance(value, list) else value
    if value:
        raise PydanticCustomError("pictures", "a job starts from one picture; others can speak through ip_adapter")
    return None


def _rename(**names: str) -> BeforeValidator:
    """Reads what others call a choice."""
    return BeforeValidator(lambda value: names.get(value.lower(), value) if isinstance(value, str) else value)


_ONE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 1}, {"type": "null"}]}
Picture = Annotated[Reference | None, BeforeValidator(_take_one), WithJsonSchema(_ONE)]
Pictures = Annotated[list[Reference], Field(min_length=1, max_length=MAX_REFERENCES), BeforeValidator(_wrap)]
Format = Annotated[Literal["png", "jpeg", "webp"], _rename(jpg="jpeg", png="png", jpeg="jpeg", webp="webp")]
Delivery = Annotated[Literal["auto", "base64", "s3"], _rename(b64_json="base64", url="auto")]


def _admit_others(schema: dict[str, Any]) -> None:
    """A job may hold OpenAI's request instead, of which `openai.py` makes these fields, or ask what there is."""
    instead = ("openai_route", "capabilities")
    schema["anyOf"] = [{"required": schema.pop("required")}, *({"required": [name]} for name in instead)]
    schema["properties"]["openai_route"] = {"type": ["string", "null"], "default": None}
    schema["properties"]["openai_input"] = {"type": ["object", "null"], "default": None}


class Fields(ElsewhereFields):
    """The fields of `job["input"]`, as callers write them; those of other services are inherited."""

    model_config = ConfigDict(validate_default=True, json_schema_extra=_admit_others)

    prompt: Prompts = Field(description="what to draw; a list draws several prompts in one job")
    negative_prompt: Text | None = Field(
        None,
        validation_alias=AliasChoices("negative_prompt", "negative"),
        description="what not to draw; the endpoint's default, if it has one, where left out",
    )
    num_images: int = Field(
        1,
        ge=1,
        validation_alias=AliasChoices("num_images", "num_images_per_prompt", "num_outputs", "batch_size", "n"),
        description="pictures for each prompt",
    )
    width: int | None = Field(
        None, ge=64, le=8192, description="in pixels; the image's own or the endpoint's default if left out"
    )
    height: int | None = Field(
        None,
        ge=64,
        le=8192,
        description="in pixels; the image's own or the endpoint's default if left out",
    )
    scheduler: Text | None = Field(
        None,
        validation_alias=AliasChoices("scheduler", "sampler_name", "sampler_index"),
        description="by name or diffusers class name; `own`: the model's own; beside `sampler_name` the schedule type "
        "(`Karras`); the endpoint's default if left out",
    )
    num_inference_steps: int | None = Field(
        None,
        ge=1,
        validation_alias=AliasChoices("num_inference_steps", "steps"),
        description="denoising steps; the endpoint's default if left out",
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=50,
        allow_inf_nan=False,
        validation_alias=AliasChoices("guidance_scale", "cfg_scale", "guidance"),
        description="how strongly to follow the prompt; the endpoint's default if left out",
    )
    true_cfg_scale: float | None = Field(
        None,
        ge=0,
        le=50,
        allow_inf_nan=False,
        description="how strongly to be guided away from the negative prompt, by models with guidance built in",
    )
    image_guidance_scale: float | None = Field(
        None,
        ge=1,
        le=50,
        allow_inf_nan=False,
        description="how strongly to keep to the picture that is edited, by InstructPix2Pix; its pipeline's default if "
        "left out",
    )
    max_sequence_length: int | None = Field(
        None, ge=1, le=4096, description="tokens of the prompt that are read, up to what the model takes"
    )
    seed: int | list[int | None] | None = Field(
        None, description="the first picture's seed (the next counts up), or a list, one each; -1 or null: random"
    )
    image: Picture = Field(
        None,
        validation_alias=AliasChoices("image", "image_url", "init_image", "init_images", "input_image"),
        description="a picture to start from, or to edit: URL, data URI, base64 or a path on the network volume",
    )
    images: Pictures | None = Field(
        None,
        validation_alias=AliasChoices("images", "image_urls", "input_images"),
        description="the pictures that the prompt, an instruction, speaks of; one alone may stand in `image`",
    )
    layers: int | None = Field(
        None, ge=1, le=MAX_LAYERS, description="transparent layers that `image` is split into, by models that do that"
    )
    mask: Reference | None = Field(
        None,
        validation_alias=AliasChoices("mask", "mask_url", "mask_image"),
        description="white is drawn anew, black stays as it is; instead of it, parts of `image` may be transparent",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        validation_alias=AliasChoices("strength", "prompt_strength", "denoising_strength"),
        description="how far to move from the image; the pipeline's default if left out",
    )
    outpaint: OutpaintField | None = Field(
        None, description="draws on beyond the edges of `image`, in pixels: left, right, top, bottom"
    )
    controlnet: Controls | None = Field(
        None,
        description="what the picture follows: name, image, mode (of a union), scale, start, end (shares of the steps)",
    )
    ip_adapter: ImagePromptField | None = Field(
        None, description="a picture that speaks beside the prompt: image, scale"
    )
    loras: Annotated[Loras | None, Unasked(("",), ("lora_weights", "hf_lora", "replicate_weights"))] = Field(
        None,
        validation_alias=AliasChoices("loras", "lora", "lora_weights", "hf_lora", "replicate_weights"),
        description="LoRAs for this job: names, or name and scale each",
    )
    lora_scale: float | None = Field(
        None,
        ge=-MAX_LORA_SCALE,
        le=MAX_LORA_SCALE,
        allow_inf_nan=False,
        description="scale of the LoRAs that bring none",
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
    refiner_inference_steps: int | None = Field(
        None,
        ge=1,
        le=500,
        validation_alias=AliasChoices("refiner_inference_steps", "refine_steps"),
        description="short for `refiner.steps`",
    )
    output_format: Format = Field(
        "png",
        validation_alias=AliasChoices("output_format", "image_format"),
        description="file format of the pictures",
    )
    quality: Annotated[int, Unasked(("auto", "standard"))] = Field(
        90,
        ge=1,
        le=100,
        validation_alias=AliasChoices("quality", "output_quality", "output_compression"),
        description="of jpeg and webp",
    )
    delivery: Delivery = Field(
        "auto",
        validation_alias=AliasChoices("delivery", "response_format"),
        description="how pictures are returned; auto: the bucket if there is one, else base64",
    )
    preview: bool = Field(False, description="small pictures in the progress updates")
    replay: Reference | None = Field(
        None, description="a picture that this worker made: the same request again; fields beside it override"
    )
    capabilities: bool = Field(
        False, description="true, alone in a job: what the loaded model can do is answered, and nothing is drawn"
    )
    safety_checker: bool | None = Field(None, description="true: insist on the safety checker")
    nsfw: bool = Field(False, description="accepted for other workers' clients; has no effect")

    @field_validator("*")
    @classmethod
    def _keep(cls, value: object, info: ValidationInfo[dict[str, Any]]) -> object:
        """Keep a value that passed, or a default, in the context; of fields of which one failed there is no model."""
        info.context[str(info.field_name)] = value
        return value


def spellings() -> dict[str, str]:
    """Every accepted spelling of a field -> the field's own name."""
    return {
        str(spelling): name
        for name, field in Fields.model_fields.items()
        for spelling in (field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name])
    }
