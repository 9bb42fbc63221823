"""Looks at a picture and says what is in it: background, and each object's shape, colour, size, style and place.

It does not know the model: it segments by colour and classifies the outline by geometry. Thresholds are in pixels of
a 256x256 picture and in CIELAB distances.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from training.render import FIGURES
from training.world import COLOURS, SMALL_LIMIT

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]

FOREGROUND = 20.0  # CIELAB distance from the background; shadows and gradients stay below
MIN_SIDE = 120  # pixels of an object
GRID = 64  # masks are compared at this size
ALIKE = 0.80  # overlap below which a mask is no known shape


@dataclass(frozen=True)
class Seen:
    """One object found. `shape` is "unknown" where no figure fits; centre and radius in pixels."""

    shape: str
    colour: str
    style: str
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """ "small" or "large"."""
        return "small" if self.radius < SMALL_LIMIT else "large"


def judge(picture: NDArray[np.uint8]) -> tuple[str, list[Seen]]:
    """What a picture shows.

    Args:
        picture: (256, 256, 3) sRGB.

    Returns:
        The background's colour and the objects, largest first.
    """
    lab = cielab(picture / 255.0)
    frame = np.concatenate(
        [lab[:4].reshape(-1, 3), lab[-4:].reshape(-1, 3), lab[:, :4].reshape(-1, 3), lab[:, -4:].reshape(-1, 3)]
    )
    background = colour_name(np.median(frame, axis=0))
    # The background may be lit: its colour is taken row by row, from both edges.
    ground = np.median(np.concatenate([lab[:, :5], lab[:, -5:]], axis=1), axis=1)
    ground = ndimage.median_filter(ground, size=(31, 1), mode="nearest")
    away = np.sqrt(((lab - ground[:, None]) ** 2).sum(-1))
    labels, count = ndimage.label(away > FOREGROUND, structure=np.ones((3, 3)))
    found = [_object(labels == k, lab, away) for k in range(1, count + 1) if (labels == k).sum() >= MIN_SIDE]
    return background, sorted(found, key=lambda seen: -seen.radius)


def _object(mask: Mask, lab: Pixels, away: Pixels) -> Seen:
    """Name one connected piece of foreground."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    # Edges mix the object with its background: the pixels farthest from the background are the object's own.
    own = mask & (away >= np.percentile(away[mask], 60))
    inked = mask[top:bottom, left:right]
    shape, style = name_figure(inked)
    return Seen(
        shape=shape,
        colour=colour_name(np.median(lab[own], axis=0)),
        style=style,
        x=(left + right) / 2,
        y=(top + bottom) / 2,
        radius=max(bottom - top, right - left) / 2,
    )


def name_figure(inked: Mask) -> tuple[str, str]:
    """Shape and style of a mask cut to its box: its holes tell the style, its outline the shape."""
    height, width = inked.shape
    if not 0.6 < height / width < 1.6:
        return "unknown", "filled"
    solid = ndimage.binary_fill_holes(inked)
    holes, _ = ndimage.label(solid & ~inked)
    areas = np.sort(np.bincount(holes.ravel())[1:])[::-1]
    share = areas.sum() / solid.sum()
    style = "filled"
    if share > 0.06:
        style = "outlined" if areas[0] > 0.85 * areas.sum() else "striped"
    overlaps = {name: _overlap(solid, figure, height / width) for name, figure in _figures().items()}
    shape = max(overlaps, key=lambda name: overlaps[name])
    if overlaps[shape] < ALIKE:
        return "unknown", style
    if shape == "circle" and style == "outlined" and share < 0.45:
        return "ring", "filled"
    return shape, style


def _overlap(solid: Mask, figure: Mask, aspect: float) -> float:
    """Intersection over union, the mask stretched to the figure's own box; less where the proportions differ."""
    height, width = figure.shape
    rows = ((np.arange(height) + 0.5) * solid.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * solid.shape[1] / width).astype(int)
    stretched = solid[np.ix_(rows, columns)]
    ratio = aspect / (height / width)
    likeness = float((stretched & figure).sum() / (stretched | figure).sum())
    return likeness * math.sqrt(math.sqrt(min(ratio, 1 / ratio)))


@cache
def _figures() -> dict[str, Mask]:
    """Ideal outlines, cut to their boxes. A ring's is a circle: its hole tells it."""
    axis = (torch.arange(GRID) + 0.5) / GRID * 2 - 1
    masks = {}
    for name, distance in FIGURES.items():
        mask = (distance(axis[None, :], axis[:, None]) < 0).numpy()
        rows, columns = (np.flatnonzero(mask.any(axis=side)) for side in (1, 0))
        masks[name] = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    del masks["ring"]
    return masks


@cache
def _palette() -> Pixels:
    return cielab(np.array(list(COLOURS.values())) / 255.0)


def colour_name(lab: Pixels) -> str:
    """The nearest of the colours, by CIELAB distance."""
    return list(COLOURS)[int(((_palette() - lab) ** 2).sum(-1).argmin())]


def cielab(srgb: Pixels) -> Pixels:
    """sRGB in 0 to 1 -> CIELAB (D65), any shape (..., 3). IEC 61966-2-1 and CIE 15."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
