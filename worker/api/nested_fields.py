"""Request fields that are objects of their own: what stands inside `loras`, `controlnet`, `hires` and the like.

Shapes and bounds only; whether the loaded model has what they name is checked in `validators.py`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Reference = Annotated[str, Field(min_length=1)]  # of a picture; its length is bounded where it is read


class Nested(BaseModel):
    """An object inside a request."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LoraField(Nested):
    """A LoRA by name."""

    name: str = Field(min_length=1, max_length=300)
    scale: float | None = Field(None, ge=-10, le=10, allow_inf_nan=False)


class ControlField(Nested):
    """A ControlNet by name, and the picture it follows, as that ControlNet wants it: edges, depth, a pose."""

    name: str | None = Field(None, min_length=1, max_length=300)
    image: Reference
    scale: float = Field(1.0, ge=0, le=10, allow_inf_nan=False)
    start: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    end: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)


class ImagePromptField(Nested):
    """A picture that speaks beside the prompt."""

    image: Reference
    scale: float = Field(1.0, ge=0, le=10, allow_inf_nan=False)


class HiresField(Nested):
    """A second pass over the picture, enlarged."""

    scale: float = Field(2.0, gt=1, le=4, allow_inf_nan=False)
    strength: float = Field(0.5, gt=0, le=1, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1, le=500)
    upscaler: Literal["lanczos", "latent"] = "lanczos"


class RefinerField(Nested):
    """How an SDXL refiner finishes the picture: from where on in the schedule, or as a second pass of some strength."""

    high_noise_frac: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    strength: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1, le=500)


def _plain_bucket(name: str) -> str:
    if name.endswith(("--x-s3", "--ol-s3", "-s3alias")):
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
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$"), AfterValidator(_plain_bucket)
    ]
    endpointUrl: str = Field(max_length=1_000, pattern="^https?://[!-~]+$")


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _named(value: object) -> object:
    return [{"name": one} if isinstance(one, str) else one for one in value] if isinstance(value, list) else value


# One may stand alone; a LoRA may be a plain name. Of such validators the last runs first.
Loras = Annotated[
    list[LoraField], Field(min_length=1, max_length=8), BeforeValidator(_named), BeforeValidator(_one_or_more)
]
Controls = Annotated[list[ControlField], Field(min_length=1, max_length=4), BeforeValidator(_one_or_more)]
