"""What a job asks for, with nothing left open: the parser's answer, and all that the engine and the delivery read."""

from dataclasses import dataclass
from typing import Literal

from PIL.Image import Image

from worker.families import task_name
from worker.schedulers import Scheduler
from worker.settings import Bucket


@dataclass(frozen=True)
class Picture:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Source:
    """What a picture is started from.

    Attributes:
        image: RGB, of the size to draw at.
        strength: share of the noise schedule that is run, above 0 and at most 1.
        mask: of the same size; 255 is drawn anew, 0 stays as it is. None for all of it.
    """

    image: Image
    strength: float
    mask: Image | None


@dataclass(frozen=True)
class Control:
    """A ControlNet, the picture it follows (RGB, of the size to draw at), how strongly, and in which share of steps."""

    name: str
    image: Image
    scale: float
    start: float
    end: float


@dataclass(frozen=True)
class ImagePrompt:
    """A picture of any size that speaks beside the prompt, through an IP-Adapter."""

    image: Image
    scale: float


@dataclass(frozen=True)
class Lora:
    """A LoRA by name, and how strongly it acts."""

    name: str
    scale: float


@dataclass(frozen=True)
class Hires:
    """A second pass over the enlarged picture.

    Attributes:
        scale: of the enlargement, as asked for.
        latent: True to enlarge the latents, False the picture itself.
    """

    scale: float
    width: int
    height: int
    strength: float
    steps: int
    latent: bool


@dataclass(frozen=True)
class Refinement:
    """How an SDXL refiner finishes a picture.

    Attributes:
        high_noise_frac: share of the noise schedule that the base model does, as one of an ensemble of experts
            (arXiv:2307.01952, section 2.5); None for a second pass over the finished picture.
        strength: of that second pass.
        steps: length of the refiner's whole schedule, of which it does the rest.
    """

    high_noise_frac: float | None
    strength: float
    steps: int


@dataclass(frozen=True)
class Request:
    """What is to be drawn and where it goes; every default filled in, every choice made.

    Attributes:
        pictures: prompt by prompt, in the order of the answer.
        width, height: pixels, multiples of the family's step; of the first pass, if there is a second.
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
    source: Source | None
    controls: tuple[Control, ...]
    image_prompt: ImagePrompt | None
    loras: tuple[Lora, ...]
    clip_skip: int | None
    guidance_rescale: float | None
    hires: Hires | None
    refinement: Refinement | None
    preview: bool
    output_format: Literal["png", "jpeg", "webp"]
    format_fixed: bool
    quality: int
    delivery: Literal["auto", "base64", "s3"]
    bucket: Bucket | None
    warnings: tuple[str, ...]

    @property
    def task(self) -> str:
        """What the first pass is asked to do, as in `Model.tasks`."""
        masked = self.source is not None and self.source.mask is not None
        return task_name(self.source is not None, masked, bool(self.controls))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the finished pictures."""
        return (self.hires.width, self.hires.height) if self.hires else (self.width, self.height)
