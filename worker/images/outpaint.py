"""A picture with room beyond its edges, and a mask of that room: what is to be drawn on."""

import PIL.Image
from PIL.Image import Image

Sides = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


def pad_image(image: Image, sides: Sides) -> Image:
    """The picture with that much room around it, in colours near its own: there the picture itself is stretched."""
    wide = image.resize(padded_size(image.size, sides))
    wide.paste(image, sides[:2])
    return wide


def pad_mask(mask: Image | None, size: tuple[int, int], sides: Sides) -> Image:
    """A mask of the room, and of what was masked before.

    Args:
        mask: of the picture; None for nothing of it.
        size: of the picture.
    """
    wide = PIL.Image.new("L", padded_size(size, sides), 255)
    wide.paste(mask or PIL.Image.new("L", size, 0), sides[:2])
    return wide


def padded_size(size: tuple[int, int], sides: Sides) -> tuple[int, int]:
    """Width and height with the room."""
    left, top, right, bottom = sides
    return size[0] + left + right, size[1] + top + bottom
