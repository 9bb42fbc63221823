"""The request with nothing left open, and the pictures that come of it. Knows nothing of where they go."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import PIL.Image
from PIL.Image import Image

from worker.models.capabilities import EDIT, MASK, TEXT, Capabilities, task_name
from worker.models.schedulers import Scheduler

# AUTOMATIC1111's web UI names LoRAs in prompts, <lora:name:0.8>; such a tag is no text, whatever stands in it.
PROMPT_TAG = re.compile(r"<(?P<kind>\w+):(?P<rest>[^<>]+)>")


def remove_tags(prompt: str) -> str:
    """What of a prompt is text."""
    return PROMPT_TAG.sub("", prompt)


@dataclass(frozen=True)
class Picture:
    """One picture to draw; its prompt as it was asked for, tags included."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class InitImage:
    """What a picture is started from.

    Attributes:
        image: RGB, of the size to draw at.
        strength: share of the noise schedule that is run, above 0 and at most 1.
        mask: of the same size; 255 is drawn anew, 0 stays as it is. None for all of it.
        mask_is_transparency: whether it is what was transparent in the image, and no picture of its own.
        mask_blur, mask_inverted: how the job's mask was to be read, which has been done.
    """

    image: Image
    strength: float
    mask: Image | None
    mask_is_transparency: bool = False
    mask_blur: int = 0
    mask_inverted: bool = False


@dataclass(frozen=True)
class Outpaint:
    """How many pixels a picture is drawn on for, beyond each of its sides."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True)
class Control:
    """A ControlNet, the picture it follows (RGB, of the size to draw at), how strongly, and in which share of steps.

    Attributes:
        mode: what a union ControlNet follows in the picture, by its number; None for others.
        hole: where the picture is hidden from it: a mask of its size, 255 there; None for nowhere.
    """

    name: str
    image: Image
    scale: float
    start: float
    end: float
    mode: int | None = None
    hole: Image | None = None


@dataclass(frozen=True)
class ImagePrompt:
    """A picture of any size that speaks beside the prompt, through an IP-Adapter."""

    image: Image
    scale: float


@dataclass(frozen=True)
class Lora:
    """A LoRA by name, and how strongly it acts.

    Attributes:
        from_prompt: whether the prompt alone names it.
    """

    name: str
    scale: float
    from_prompt: bool = field(default=False, compare=False)


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
    """What is to be drawn; every default filled in, every choice made.

    Attributes:
        pictures: prompt by prompt, in the order of the answer.
        true_cfg_scale: how strongly it is guided away from the negative prompt, where guidance is built in, too.
        image_guidance_scale: how strongly it keeps to the picture that is edited; None for the pipeline's default.
        max_sequence_length: tokens of a prompt that are read; None for the pipeline's default.
        references: RGB, of any size: the pictures that the prompt, an instruction, speaks of, in its order.
        layers: that each picture is split into; None where it stays whole.
        width, height: pixels, multiples of the family's step; of the first pass, if there is a second.
        outpaint: how far the first picture goes on beyond the one that the job brought.
        cut: width and height to which the finished picture is cut at its right and lower edge, because the model
            draws in steps; None for all of it.
        warnings: what was changed or ignored, for the caller.
    """

    pictures: tuple[Picture, ...]
    negative_prompt: str | None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: Scheduler
    init_image: InitImage | None = None
    references: tuple[Image, ...] = ()
    layers: int | None = None
    controls: tuple[Control, ...] = ()
    image_prompt: ImagePrompt | None = None
    loras: tuple[Lora, ...] = ()
    clip_skip: int | None = None
    guidance_rescale: float | None = None
    true_cfg_scale: float | None = None
    image_guidance_scale: float | None = None
    max_sequence_length: int | None = None
    hires: Hires | None = None
    refinement: Refinement | None = None
    preview: bool = False
    outpaint: Outpaint | None = None
    cut: tuple[int, int] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """What the first pass is asked to do, as in `Capabilities.tasks`."""
        masked = self.init_image is not None and self.init_image.mask is not None
        return task_name(self.init_image is not None, masked, bool(self.controls), bool(self.references))


@dataclass(frozen=True)
class GeneratedImage:
    """A picture and what belongs to it.

    Attributes:
        image: RGB, or RGBA where a model draws transparent parts.
        layers: RGBA, the lowest first, of a picture that is split; `image` is the first of them.
        nsfw: what the safety checker said; such a picture is black.
        low_memory: whether it was drawn a second time, with less memory, because the first ran out of it.
        resized_from: the size that the model drew instead of the one asked for, or None.
        acceleration: how passes were done: as written (off), by graphs, or compiled; None on a CPU.
    """

    picture: Picture
    image: Image
    nsfw: bool
    layers: tuple[Image, ...] = ()
    low_memory: bool = False
    resized_from: tuple[int, int] | None = None
    acceleration: str | None = None

    def list_pictures(self) -> list["GeneratedImage"]:
        """Those that are answered: it, or each of its layers."""
        return [replace(self, image=layer, layers=()) for layer in self.layers] or [self]


SELF_TEST_SIDE = 256  # pixels


def make_test_picture(size: tuple[int, int]) -> Image:
    """A picture of the worker's own, for models that draw from one."""
    return PIL.Image.linear_gradient("L").resize(size).convert("RGB")


def _choose_test_pictures(model: Capabilities, size: tuple[int, int]) -> dict[str, Any]:
    """What a model is given that draws from no prompt alone, as attributes of a request."""
    picture = make_test_picture(size)
    if TEXT in model.tasks:
        return {}
    if EDIT in model.tasks:
        return {"references": (picture,), "layers": 1 if model.splits else None}
    if MASK in model.tasks:
        return {"init_image": InitImage(picture, 1.0, PIL.Image.new("L", size, 255))}
    return {"controls": (Control(model.controlnets[0], picture, 1.0, 0.0, 1.0),)}


def self_test_request(model: Capabilities, size: tuple[int, int] | None = None) -> Request:
    """The smallest request that exercises all of a model, within the owner's limits or not.

    Args:
        size: width and height to draw at, in pixels; a small one if left out.
    """
    width, height = size or (min(model.width, SELF_TEST_SIDE), min(model.height, SELF_TEST_SIDE))
    return Request(
        pictures=(Picture("a picture" if model.splits else "", 0),),  # without a prompt such a model writes one first
        negative_prompt=model.negative_prompt,
        width=width,
        height=height,
        **_choose_test_pictures(model, (width, height)),
        num_inference_steps=model.scheduler.min_steps,
        guidance_scale=model.guidance_scale,
        scheduler=model.scheduler,
        refinement=Refinement(None, 1.0, model.scheduler.min_steps) if model.refiner else None,
    )
