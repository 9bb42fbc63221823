"""What of a picture is drawn anew: where its mask says so, in any form that canvases and other services have, or where
it is transparent itself.

A mask is white where drawing goes on and black where the picture stays. On a transparent ground, a drawing in one
colour means what is drawn, as AUTOMATIC1111 reads it; one in several colours counts by its lightness; and the picture
itself with a hole means the hole, as OpenAI has it.
"""

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat

MAX_SPREAD = 40  # between the lightest and the darkest of a channel in what counts as one colour
MAX_DIFFERENCE = 12.0  # on average, between a picture and its copy
MAX_SAMPLED_SIDE = 1_024  # pixels, of pictures that are compared
WHITE = 128  # pipelines take a mask's grey from the middle on as white
_MIN_OPACITY = 8  # of a pen


def read_mask(
    mask: Image.Image, image: Image.Image, warnings: list[str], redraw_transparent: bool = False
) -> Image.Image:
    """The mask of a picture of a mask, in the image's size: 255 is drawn anew, 0 stays.

    Args:
        mask: RGB or RGBA.
        image: what it is the mask of.
        warnings: is told where the mask was stretched, and where it was read by its transparency.
        redraw_transparent: whether what is transparent in it is drawn anew, whatever else it shows.
    """
    if mask.size != image.size:
        sizes = f"{mask.width}x{mask.height} was stretched to the image's {image.width}x{image.height}"
        warnings.append(f"mask: {sizes}")
    if mask.mode != "RGBA" or _extremes(mask.getchannel("A"))[0] == 255:
        return _resize(mask.convert("L"), image.size)
    mask = _resize(mask, image.size)
    alpha = mask.getchannel("A")
    if redraw_transparent:
        return ImageOps.invert(alpha)
    opaque = alpha.point(lambda value: 255 * (value >= WHITE))
    colour = _find_one_colour(mask, alpha)
    if opaque.getbbox() and _is_copy(mask, image, opaque) and not (colour and _is_drawing(opaque)):
        warnings.append("mask: it is the image itself, so what is transparent in it is drawn anew")
        return ImageOps.invert(alpha)
    if colour is None:
        return ImageChops.multiply(mask.convert("L"), alpha)
    if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < WHITE:  # lightness, ITU-R BT.601
        warnings.append("mask: it is a drawing in a dark colour, so what is opaque in it is drawn anew")
    return _scale_opacity(alpha)


def _extremes(channel: Image.Image) -> tuple[int, int]:
    low, high = ImageStat.Stat(channel).extrema[0]
    return int(low), int(high)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size)


def _find_one_colour(mask: Image.Image, alpha: Image.Image) -> list[float] | None:
    """The colour of all that is drawn, or None if there are several. Its soft edges do not count."""
    highest = _extremes(alpha)[1]
    drawn = alpha.point(lambda value: 255 * (value >= max(_MIN_OPACITY, highest // 2)))
    if drawn.getbbox() is None:
        return None
    found = ImageStat.Stat(mask.convert("RGB"), drawn)
    if any(high - low > MAX_SPREAD for low, high in found.extrema):
        return None
    return list(found.mean)


def _is_copy(mask: Image.Image, image: Image.Image, opaque: Image.Image) -> bool:
    """Whether the mask shows what the image shows where it is opaque; one of the two may have been compressed."""
    seen, plain, where = (_sample(one) for one in (mask, image, opaque))
    if where.getbbox() is None:
        return False
    differences = ImageStat.Stat(ImageChops.difference(seen.convert("RGB"), plain.convert("RGB")), where).mean
    spreads = ImageStat.Stat(plain.convert("RGB"), where).stddev
    # What is no copy differs from a picture by four fifths of its spread at least, which a flat grey does.
    return all(one <= max(MAX_DIFFERENCE, spread / 2) for one, spread in zip(differences, spreads, strict=True))


def _sample(image: Image.Image) -> Image.Image:
    """Some of its pixels, in the same places of each picture of one size."""
    share = min(1.0, MAX_SAMPLED_SIDE / max(image.size))
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, Image.Resampling.NEAREST)


def _is_drawing(opaque: Image.Image) -> bool:
    """Whether most of the edge is transparent, as around a drawing and not around a hole."""
    width, height = opaque.size
    sides = [(0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)]
    edge = [value for side in sides for value in opaque.crop(side).get_flattened_data()]
    return edge.count(0) > len(edge) / 2


def _scale_opacity(alpha: Image.Image) -> Image.Image:
    """The opacity of a drawing whose pen may have been translucent."""
    highest = _extremes(alpha)[1]
    return alpha.point(lambda value: min(255, round(value * 255 / max(1, highest))))


def transparency_mask(image: Image.Image) -> Image.Image | None:
    """The mask that a picture's own transparency makes: what is transparent is drawn anew. None if nothing is."""
    if image.mode != "RGBA":
        return None
    mask = ImageOps.invert(image.getchannel("A"))
    return mask if has_white(mask) else None


def has_white(mask: Image.Image) -> bool:
    """Whether any of it is to be drawn anew."""
    return mask.point(lambda value: 255 * (value >= WHITE)).getbbox() is not None


def soften(mask: Image.Image, radius: int) -> Image.Image:
    """The mask blurred, with a standard deviation of this many pixels."""
    return mask.filter(ImageFilter.GaussianBlur(radius)) if radius else mask
