"""Fields that passed every rule -> the Request: every default filled in, every choice made, each picture fitted."""

import math
import secrets
from collections.abc import Sequence

from PIL.Image import Image

from worker.api.nested_fields import RefinerField
from worker.api.schema import Fields
from worker.api.validators import choose_scheduler
from worker.errors import InvalidInputError
from worker.images.load import PictureRules, read_picture
from worker.images.resize import SizeLimits, choose_size, fit_image, flatten, has_white, to_mask, transparency_mask
from worker.models.capabilities import CONTROLLED, IMAGE, TEXT, Capabilities, task_name
from worker.output.options import Bucket, OutputOptions
from worker.request import Control, Hires, ImagePrompt, InitImage, Lora, Picture, Refinement, Request

SEEDS = 2**32
# The image encoder's processor scales the shorter side to 224 pixels before it cuts the middle out.
_MAX_ASPECT = 16


class Resolver:
    """What fields that passed every rule mean for this model: every default filled in, every choice made."""

    def __init__(self, fields: Fields, model: Capabilities, rules: PictureRules, warnings: list[str]) -> None:
        """Nothing is chosen yet.

        Args:
            warnings: what has been said so far; more is added.
        """
        self._fields = fields
        self._model = model
        self._rules = rules
        self._warnings = warnings

    def request(self) -> Request:
        """The request; fetches the pictures that the fields name.

        Raises:
            InvalidInputError: a picture cannot be had, or what it asks for is nothing.
        """
        fields, model = self._fields, self._model
        image = self._read("image", fields.image)
        followed = [self._read(f"controlnet.{i}.image", one.image) for i, one in enumerate(fields.controlnet or [])]
        limits = SizeLimits(model.width, model.height, model.max_pixels, model.family.size_step)
        start = image or next(iter(followed), None)
        self._size = choose_size(fields.width, fields.height, start, limits, self._warnings)
        self._scheduler = choose_scheduler(fields.scheduler, model)
        self._steps = fields.num_inference_steps or max(
            self._scheduler.min_steps, min(model.family.steps, model.max_steps)
        )
        mask = self._mask(image)
        self._task = task_name(image is not None, mask is not None, bool(followed))
        return Request(
            pictures=self._pictures(),
            negative_prompt=fields.negative_prompt,
            width=self._size[0],
            height=self._size[1],
            num_inference_steps=self._steps,
            guidance_scale=_either(fields.guidance_scale, model.family.guidance_scale),
            scheduler=self._scheduler,
            init_image=self._init_image(image, mask),
            controls=self._controls(followed),
            image_prompt=self._image_prompt(),
            loras=self._loras(),
            clip_skip=fields.clip_skip,
            guidance_rescale=fields.guidance_rescale,
            hires=self._hires(),
            refinement=self._refinement(),
            preview=fields.preview,
            warnings=(*self._warnings, *_list_ignored(fields, model), *filter(None, [self._scheduler.caveat])),
        )

    def _read(self, name: str, reference: str | None) -> Image | None:
        return read_picture(name, reference, self._rules) if reference is not None else None

    def _pictures(self) -> tuple[Picture, ...]:
        fields = self._fields
        prompts = [prompt for prompt in fields.prompt for _ in range(fields.num_images)]
        if isinstance(fields.seed, list):
            seeds = [_seed(seed) for seed in fields.seed]
        else:
            first = _seed(fields.seed)
            seeds = [(first + i) % SEEDS for i in range(len(prompts))]
        return tuple(Picture(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True))

    def _mask(self, image: Image | None) -> Image | None:
        """The mask in the image's own size; without one, what is transparent in the image is drawn anew."""
        sent = self._read("mask", self._fields.mask)
        if image is None:
            return None
        if sent is None:
            return self._transparent(image)
        mask = to_mask(sent)
        if not has_white(mask):
            raise InvalidInputError(["mask: it is black; white is what is drawn anew"])
        if mask.size != image.size:
            self._warnings.append(f"mask: {_by(mask.size)} was stretched to the image's {_by(image.size)}")
            mask = mask.resize(image.size)
        return mask

    def _transparent(self, image: Image) -> Image | None:
        mask = transparency_mask(image)
        if mask is None:
            return None
        if task_name(True, True, self._fields.controlnet is not None) not in self._model.tasks:
            return None
        self._warnings.append("image: only its transparent parts are drawn anew; without them, all of it is")
        return mask

    def _init_image(self, image: Image | None, mask: Image | None) -> InitImage | None:
        if image is None:
            return None
        own = self._model.tasks[self._task].get("strength")
        default = max(own if isinstance(own, float) else 1.0, _least_strength(self._steps))
        strength = _either(self._fields.strength, default)
        _check_at_least_one_step("strength", strength, self._steps)
        transparency_is_mask = mask is not None and self._fields.mask is None
        opaque = flatten(image) if transparency_is_mask else self._filled("image", image)
        framed = fit_image("image", opaque, self._size, self._warnings)
        return InitImage(framed, strength, self._fitted_mask(mask) if mask is not None else None)

    def _filled(self, name: str, image: Image) -> Image:
        if transparency_mask(image):
            self._warnings.append(f"{name}: its transparent parts were filled with white")
        return flatten(image)

    def _fitted_mask(self, mask: Image) -> Image:
        framed = fit_image("mask", mask, self._size, [])
        if not has_white(framed):
            name = "mask" if self._fields.mask is not None else "image"
            raise InvalidInputError([f"{name}: nothing of what is to be drawn anew is left at {_by(self._size)}"])
        return framed

    def _controls(self, images: Sequence[Image | None]) -> tuple[Control, ...]:
        return tuple(
            Control(
                name=control.name or self._model.controlnets[0],
                image=self._followed(f"controlnet.{i}.image", image),
                scale=control.scale,
                start=control.start,
                end=control.end,
            )
            for i, (control, image) in enumerate(zip(self._fields.controlnet or [], images, strict=True))
            if image is not None
        )

    def _followed(self, name: str, image: Image) -> Image:
        return fit_image(name, self._filled(name, image), self._size, self._warnings)

    def _image_prompt(self) -> ImagePrompt | None:
        given = self._fields.ip_adapter
        if given is None:
            return None
        image = read_picture("ip_adapter.image", given.image, self._rules)
        if max(image.size) > _MAX_ASPECT * min(image.size):
            told = f"one side may be at most {_MAX_ASPECT} times the other"
            raise InvalidInputError([f"ip_adapter.image: got {_by(image.size)}; {told}"])
        return ImagePrompt(self._filled("ip_adapter.image", image), given.scale)

    def _loras(self) -> tuple[Lora, ...]:
        default = _either(self._fields.lora_scale, 1.0)
        given = self._fields.loras or []
        return tuple(Lora(one.name.removesuffix(".safetensors"), _either(one.scale, default)) for one in given)

    def _hires(self) -> Hires | None:
        given = self._fields.hires
        if given is None:
            return None
        step = self._model.family.size_step
        exact = [round(side * given.scale, 6) for side in self._size]
        width, height = (math.floor(side / step) * step for side in exact)
        if [width, height] != exact:
            self._warnings.append(f"hires: the second pass is {_by((width, height))}, in multiples of {step}")
        steps = given.steps or self._steps
        _check_at_least_one_step("hires.strength", given.strength, steps)
        return Hires(given.scale, width, height, given.strength, steps, latent=given.upscaler == "latent")

    def _refinement(self) -> Refinement | None:
        """The refiner's part; with a refiner loaded, jobs that do not mention it use it as well."""
        fields, given = self._fields, self._fields.refiner or RefinerField()
        if not self._model.refiner:
            return None
        steps = given.steps or fields.refiner_inference_steps or self._steps
        if given.strength is not None:
            _check_at_least_one_step("refiner.strength", given.strength, steps)
            return Refinement(None, given.strength, steps)
        asked = given.high_noise_frac or fields.high_noise_frac
        if asked == 1:
            return None
        if self._task not in (TEXT, TEXT + CONTROLLED) or not self._model.accepts(self._task, "denoising_end"):
            if asked is not None or steps != self._steps:
                self._warnings.append("refiner: has no effect here; refiner.strength refines any picture")
            return None
        return Refinement(asked or 0.8, 1.0, steps)


def resolve_output(fields: Fields, bucket: Bucket | None) -> OutputOptions:
    """How these fields want the pictures handed over."""
    return OutputOptions(
        format=fields.output_format,
        format_fixed="output_format" in fields.model_fields_set,
        quality=fields.quality,
        delivery=fields.delivery,
        bucket=bucket,
    )


def _either(value: float | None, default: float) -> float:
    return default if value is None else value


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _check_at_least_one_step(name: str, strength: float, steps: int) -> None:
    if int(strength * steps) < 1:
        least = _least_strength(steps)
        raise InvalidInputError([f"{name}: got {strength:g}; of {steps} steps that is none, give {least:g} or more"])


def _least_strength(steps: int) -> float:
    """The share of the steps that is one, rounded up, so that it is."""
    return math.ceil(10_000 / steps) / 10_000


def _seed(seed: int | None) -> int:
    return secrets.randbelow(SEEDS) if seed is None or seed == -1 else seed % SEEDS


_REFINER = dict.fromkeys(
    ("refiner", "high_noise_frac", "refiner_inference_steps"), "has no effect; this endpoint has no refiner"
)


def _list_ignored(fields: Fields, model: Capabilities) -> list[str]:
    without_effect = {} if model.refiner else dict(_REFINER)
    if fields.image is None:
        without_effect["strength"] = "has no effect without an image"
    if all(one.scale is not None for one in fields.loras or []):
        without_effect["lora_scale"] = "has no effect without a LoRA that brings no scale"
    notes = [f"{name}: {why}" for name, why in without_effect.items() if name in fields.model_fields_set]
    if fields.guidance_scale is not None and model.family.guidance is None:
        notes.append(f"guidance_scale: has no effect; {model.family.title} has its guidance built in")
    if fields.hires and fields.guidance_rescale and not model.accepts(IMAGE, "guidance_rescale"):
        notes.append("guidance_rescale: has no effect on the second pass")
    if fields.nsfw:
        notes.append("nsfw: has no effect; the endpoint's owner decides about the safety checker")
    return notes
