"""Scenes as neon signs: each object's edge, and its stripes, as a thin glowing tube before a dark wall.

It knows light; where the lines run is `render.py`'s geometry. This is the style that `lora.py` teaches.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from training.render import Packed, distances, stripe_period
from training.world import COLOURS, SIDE, STYLES

TUBE = 2.2  # half the width of a line, in pixels
GLOW, REACH = 0.18, 14.0  # brightness of the glow at the line, and the pixels in which it falls to a third
WALL = (0.04, 0.04, 0.06)  # whatever the background's colour: a wall that kept a hint of it often kept all of it

# What glows brighter than paint. Brown glows amber; black, which cannot glow, and grey are weaker tubes of white.
TUBES = {
    "red": (255, 30, 40),
    "orange": (255, 125, 10),
    "yellow": (255, 235, 30),
    "green": (40, 255, 70),
    "blue": (40, 100, 255),
    "purple": (175, 50, 255),
    "pink": (255, 120, 200),
    "brown": (170, 90, 35),
    "black": (150, 150, 165),
    "white": (255, 255, 255),
    "grey": (190, 190, 200),
}


def render_neon(scenes: Packed) -> Tensor:
    """Draw scenes as neon signs.

    Returns:
        (B, 3, SIDE, SIDE) float32 in -1 to 1.
    """
    wall = scenes.background.new_tensor(WALL)
    canvas = wall[None, :, None, None].expand(len(scenes), -1, SIDE, SIDE)
    for slot in range(scenes.shape.shape[1]):
        present = (scenes.shape[:, slot] >= 0)[:, None, None]
        away = torch.where(present, _line(scenes, slot), 1e3)[:, None]
        canvas = _shine(canvas, away, _tube(scenes.colour[:, slot])[:, :, None, None])
    return canvas * 2 - 1


def _shine(canvas: Tensor, away: Tensor, tube: Tensor) -> Tensor:
    """Lay one object's glow and line over the canvas. `away` is (B, 1, H, W), pixels from the line."""
    glow = GLOW * torch.exp(-(away - TUBE).clamp(min=0) / REACH)
    canvas = 1 - (1 - canvas) * (1 - glow * tube)
    cover = torch.clamp(TUBE + 0.5 - away, 0, 1)
    return canvas + cover * (tube - canvas)


def _line(scenes: Packed, slot: int) -> Tensor:
    """Pixels to the nearest line of each scene's object in `slot`: its edge and, where it is striped, its stripes."""
    filled = replace(scenes, style=torch.zeros_like(scenes.style))
    inside = distances(filled, slot)
    x0, y0, radius = scenes.place[:, slot, :, None, None].unbind(1)
    axis = torch.arange(SIDE, device=inside.device) + 0.5
    period = stripe_period(radius)
    phase = torch.remainder((axis - x0 + axis[:, None] - y0) * math.sqrt(0.5), period)
    stripes = torch.maximum((phase - period / 2).abs(), inside)
    striped = (scenes.style[:, slot] == STYLES.index("striped"))[:, None, None]
    return torch.where(striped, torch.minimum(inside.abs(), stripes), inside.abs())


def _tube(colour: Tensor) -> Tensor:
    """Paint -> the light of the same name: (B, 3) sRGB in 0 to 1."""
    paints, lights = (colour.new_tensor(list(table)) / 255 for table in (COLOURS.values(), TUBES.values()))
    return lights[torch.cdist(colour, paints).argmin(1)]
