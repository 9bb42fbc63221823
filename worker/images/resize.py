"""Which size a picture is drawn at, and how the pictures that a job brings are fitted to it.

Nothing is ever stretched: a picture whose aspect differs is scaled until it covers the frame, and its middle is kept.
"""

import math
from dataclasses import dataclass

from PIL import ImageOps
from PIL.Image import Image, Resampling


@dataclass(frozen=True)
class SizeLimits:
    """What sizes a model draws.

    Attributes:
        width, height: in pixels, where nothing says another.
        max_pixels: width times height.
        step: sides are multiples of it, in pixels.
    """

    width: int
    height: int
    max_pixels: int
    step: int


def choose_size(
    width: int | None, height: int | None, image: Image | None, limits: SizeLimits, warnings: list[str]
) -> tuple[int, int]:
    """Width and height to draw at, in pixels.

    Args:
        width, height: what the job says, already within the model's limit.
        image: what it starts from, whose size and aspect count where the job says nothing.
        warnings: is told what was rounded.
    """
    if image is None:
        wanted = width or limits.width, height or limits.height
        return (_round_side("width", wanted[0], limits, warnings), _round_side("height", wanted[1], limits, warnings))
    sides = limit_size(_wanted_size(width, height, image), limits.max_pixels, limits.step)
    for name, asked, side in (("width", width, sides[0]), ("height", height, sides[1])):
        if asked not in (None, side):
            reason = f"of at most {limits.max_pixels} pixels and sides that are multiples of {limits.step}"
            warnings.append(f"{name}: {asked} became {side}, for a picture {reason}")
    return sides


def choose_edit_size(
    width: int | None, height: int | None, image: Image, limits: SizeLimits, warnings: list[str]
) -> tuple[int, int]:
    """Width and height of a picture drawn after another, in pixels: its aspect, and as many pixels as is native.

    Args:
        width, height: what the job says, already within the model's limit.
        image: the first that is edited.
        warnings: is told what was rounded.
    """
    if width or height:
        return choose_size(width, height, image, limits, warnings)
    scale = math.sqrt(min(limits.width * limits.height, limits.max_pixels) / (image.width * image.height))
    nearest = [max(1, round(side * scale / limits.step)) * limits.step for side in image.size]
    return limit_size((nearest[0], nearest[1]), limits.max_pixels, limits.step)


def _wanted_size(width: int | None, height: int | None, image: Image) -> tuple[int, int]:
    """What the job says; the side it says nothing of follows the image's aspect, down to the smallest."""
    if width and height:
        return width, height
    if width:
        return width, max(MIN_SIDE, round(image.height * width / image.width))
    if height:
        return max(MIN_SIDE, round(image.width * height / image.height)), height
    return image.size


def _round_side(name: str, side: int, limits: SizeLimits, warnings: list[str]) -> int:
    step = limits.step
    rounded = side // step * step
    if rounded != side:
        warnings.append(f"{name}: {side} was rounded to {rounded}, a multiple of {step}")
    return rounded


def fit_image(name: str, image: Image, size: tuple[int, int], warnings: list[str]) -> Image:
    """The picture at this size, in its own aspect; what does not fit is cut off at its edges alike."""
    if image.size == size:
        return image
    cover = max(size[0] / image.width, size[1] / image.height)
    cut = image.width * cover - size[0] >= 1 or image.height * cover - size[1] >= 1
    how = "scaled and its edges cut" if cut else "scaled"
    warnings.append(f"{name}: {image.width}x{image.height} was {how} to {size[0]}x{size[1]}")
    return ImageOps.fit(image, size, Resampling.LANCZOS)


def flatten(image: Image) -> Image:
    """RGB: transparent parts over white, as most viewers show them."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = image.copy()
    white.paste((255, 255, 255, 255), (0, 0, *image.size))
    white.alpha_composite(image)
    return white.convert("RGB")


MIN_SIDE = 64  # pixels a side
MAX_SIDE = 8_192  # of a picture that is drawn; WEBP ends at 16,383


def limit_size(size: tuple[int, int], max_pixels: int, step: int) -> tuple[int, int]:
    """The size in its own aspect, no larger than the limit, sides within their bounds, in whole steps."""
    shrink = min(1.0, math.sqrt(max_pixels / (size[0] * size[1])), MAX_SIDE / max(size))
    grow = max(1.0, MIN_SIDE / min(size))
    # A root that falls short of a whole number by a rounding error would cost a step.
    sides = [max(MIN_SIDE, math.floor(min(side * shrink * grow, MAX_SIDE) / step + 1e-9) * step) for side in size]
    while sides[0] * sides[1] > max_pixels:  # a sliver, whose short side was lifted to the smallest
        sides[sides[1] > sides[0]] -= step
    return sides[0], sides[1]
