"""Reads the pictures that a drawing starts from, and those that its instruction speaks of; their masks, and room beyond
their edges."""

import math
from dataclasses import astuple, dataclass, replace

from PIL import ImageOps
from PIL.Image import Image

from worker.api.schema import Fields, OutpaintField
from worker.api.sources import Source, Sources
from worker.errors import InvalidInputError
from worker.images.load import PictureRules, RemainingPictures, read_picture
from worker.images.masks import has_white, read_mask, soften, transparency_mask
from worker.images.outpaint import pad_image, pad_mask, padded_size
from worker.images.resize import MAX_SIDE, MIN_SIDE, fit_image, flatten, limit_size
from worker.models.capabilities import IMAGE, Capabilities, task_name
from worker.request import Outpaint

MAX_REFERENCE_PIXELS = 2048 * 2048  # pipelines scale those to edit to some 1024x1024 themselves

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Start:
    """What a picture is started from, in its own size: the picture, and where in it is drawn anew.

    Attributes:
        outpaint, cut: as in `Request`.
    """

    image: Image | None = None
    mask: Image | None = None
    outpaint: Outpaint | None = None
    cut: Size | None = None


def read_start(
    sources: Sources, fields: Fields, capabilities: Capabilities, rules: PictureRules, warnings: list[str]
) -> Start:
    """The picture that the drawing starts from, if it does.

    Args:
        warnings: is told how the pictures were read.

    Raises:
        InvalidInputError: one cannot be had, or nothing, or too much, is to be drawn.
    """
    if sources.image is None:
        return Start()
    image = read_picture(sources.image.field, sources.image.reference, rules)
    mask = _read_mask(fields, image, capabilities, rules, warnings)
    if fields.outpaint is not None:
        return _draw_on(fields, fields.outpaint, image, mask, capabilities)
    if mask is None and not capabilities.can_start(IMAGE):
        ways = "give one, or outpaint, or an image with transparent parts"
        raise InvalidInputError([f"mask: got nothing; {capabilities.family.title} draws what it covers; {ways}"])
    return Start(image, mask)


def _draw_on(
    fields: Fields, sides: OutpaintField, image: Image, mask: Image | None, capabilities: Capabilities
) -> Start:
    """The picture with room around it; drawn in whole steps, and then cut to what was asked for."""
    wanted = Outpaint(sides.left, sides.top, sides.right, sides.bottom)
    cut = padded_size(image.size, astuple(wanted))
    _check_wide_size(cut, capabilities)
    more = [-side % capabilities.family.size_step for side in cut]
    room = replace(wanted, right=wanted.right + more[0], bottom=wanted.bottom + more[1])
    wide = soften(pad_mask(mask, image.size, astuple(room)), fields.mask_blur)
    return Start(pad_image(image, astuple(room)), wide, wanted, cut if any(more) else None)


def _check_wide_size(size: Size, capabilities: Capabilities) -> None:
    step, limit = capabilities.family.size_step, capabilities.max_pixels
    drawn = [math.ceil(side / step) * step for side in size]
    if drawn[0] * drawn[1] > limit or max(drawn) > MAX_SIDE or min(drawn) < MIN_SIDE:
        allowed = f"{limit} pixels at most, and {MIN_SIDE} to {MAX_SIDE} on a side"
        raise InvalidInputError([f"outpaint: the image with its sides is {size[0]}x{size[1]}; it may have {allowed}"])


def _read_mask(
    fields: Fields, image: Image | None, capabilities: Capabilities, rules: PictureRules, warnings: list[str]
) -> Image | None:
    """The mask in the image's own size; without one, what is transparent in the image is drawn anew."""
    if image is None:
        return None
    if fields.mask is None:
        return _make_transparency_mask(fields, image, capabilities, warnings)
    redraw_transparent = fields.mask_transparency == "redraw"
    mask = read_mask(read_picture("mask", fields.mask, rules), image, warnings, redraw_transparent)
    inverted = bool(fields.inpainting_mask_invert)
    mask = ImageOps.invert(mask) if inverted else mask
    if not has_white(mask):
        colour, drawn = ("white", "black") if inverted else ("black", "white")
        why = ", as inpainting_mask_invert says" if inverted else ""
        raise InvalidInputError([f"mask: it is {colour}; {drawn} is what is drawn anew{why}"])
    mask = soften(mask, 0 if fields.outpaint else fields.mask_blur)
    if not has_white(mask):
        raise InvalidInputError([f"mask_blur: got {fields.mask_blur}; nothing of what is to be drawn anew is left"])
    return mask


def _make_transparency_mask(
    fields: Fields, image: Image, capabilities: Capabilities, warnings: list[str]
) -> Image | None:
    mask = transparency_mask(image)
    if mask is None or task_name(True, True, fields.controlnet is not None) not in capabilities.tasks:
        return None
    warnings.append("image: only its transparent parts are drawn anew; without them, all of it is")
    return mask


def read_references(
    sources: Sources, capabilities: Capabilities, rules: PictureRules, warnings: list[str]
) -> tuple[Image, ...]:
    """The pictures that an instruction speaks of, one after the other, within what all of them may take.

    Raises:
        InvalidInputError: one cannot be had, or is longer than the model edits.
    """
    left = RemainingPictures(rules)
    return tuple(_read_reference(one, left, capabilities, warnings) for one in sources.references)


def _read_reference(source: Source, left: RemainingPictures, capabilities: Capabilities, warnings: list[str]) -> Image:
    """RGB, in its own aspect; one of more pixels than any model looks at is scaled down.

    For a model that scales none itself it has such sides as that one sees.
    """
    image = fill_transparency(source.field, left.read(source.field, source.reference), warnings)
    size, editing = limit_size(image.size, MAX_REFERENCE_PIXELS, 1), capabilities.editing
    if editing is not None and min(_aspect(size), _aspect(image.size)) > editing.aspect:
        allowed = f"{capabilities.family.title} edits those with one side at most {editing.aspect} times"
        raise InvalidInputError([f"{source.field}: the picture is {image.width}x{image.height}; {allowed} the other"])
    if editing is not None and editing.sides is not None:
        size = editing.sides.fit(image.size, editing.aspect)
    return fit_image(source.field, image, size, warnings)


def _aspect(size: Size) -> float:
    return max(size) / min(size)


def fill_transparency(name: str, image: Image, warnings: list[str]) -> Image:
    """RGB; `warnings` are told of what was transparent."""
    if transparency_mask(image):
        warnings.append(f"{name}: its transparent parts were filled with white")
    return flatten(image)
