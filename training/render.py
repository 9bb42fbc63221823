"""Scenes as tensors -> pictures, by signed distances: antialiased, softly lit, many at a time on any device.

It knows geometry and light. It does not know what is asked for or why: scenes come in packed (`scenes.pack`).
Distances are in units of the object's radius inside the shape functions and in pixels elsewhere; y points down.
Formulas: Inigo Quilez, "2D distance functions".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.world import SHAPES, SIDE, STYLES

RING_HOLE = 0.5  # inner radius over outer radius
STAR_WAIST = 0.5  # inner radius over outer radius: stouter than a true pentagram (0.38), so that small ones stay stars
CROSS_ARM = 0.36  # half the width of an arm
SHADOW_SHIFT, SHADOW_BLUR, SHADOW_DEPTH = 4, 9.0, 0.22


@dataclass(frozen=True)
class Packed:
    """B scenes of up to three objects.

    Attributes:
        background: (B, 3) sRGB in 0 to 1.
        shape: (B, 3) index into SHAPES, -1 for no object.
        style: (B, 3) index into STYLES.
        place: (B, 3, 3) centre x, centre y, radius in pixels.
        colour: (B, 3, 3) sRGB in 0 to 1.
    """

    background: Tensor
    shape: Tensor
    style: Tensor
    place: Tensor
    colour: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def pick(self, index: Tensor | slice) -> "Packed":
        """The scenes at these indices."""
        return Packed(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def to(self, device: torch.device | str) -> "Packed":
        """The same scenes on another device."""
        return Packed(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def render(scenes: Packed) -> Tensor:
    """Draw scenes.

    Returns:
        (B, 3, SIDE, SIDE) float32 in -1 to 1.
    """
    rows = torch.linspace(0.06, -0.06, SIDE, device=scenes.place.device)
    canvas = _lit(scenes.background[:, :, None, None], rows[None, None, :, None]).expand(-1, -1, SIDE, SIDE)
    for slot in range(scenes.shape.shape[1]):
        present = (scenes.shape[:, slot] >= 0)[:, None, None]
        distance = torch.where(present, distances(scenes, slot), 1e3)
        canvas = _draw(canvas, distance, scenes.place[:, slot], scenes.colour[:, slot])
    return canvas * 2 - 1


def _draw(canvas: Tensor, distance: Tensor, place: Tensor, colour: Tensor) -> Tensor:
    """Lay one object per scene, with its shadow, over the canvas. `distance` is (B, H, W) in pixels."""
    fallen = torch.nn.functional.pad(distance, (0, 0, SHADOW_SHIFT, 0), value=1e3)[:, :SIDE]
    depth = SHADOW_DEPTH * torch.clamp(0.5 - fallen / (2 * SHADOW_BLUR), 0, 1) ** 2
    canvas = canvas * (1 - depth[:, None])
    rows = torch.arange(SIDE, device=place.device) + 0.5
    height = torch.clamp((place[:, 1:2] - rows) / place[:, 2:3], -1, 1)
    paint = _lit(colour[:, :, None, None], 0.10 * height[:, None, :, None])
    cover = torch.clamp(0.5 - distance, 0, 1)[:, None]
    return canvas + cover * (paint - canvas)


def _lit(colour: Tensor, amount: Tensor) -> Tensor:
    """Mix with white where `amount` is positive, with black where it is negative."""
    return colour * (1 - amount.abs()) + amount.clamp(min=0)


def distances(scenes: Packed, slot: int) -> Tensor:
    """Signed distance in pixels to each scene's object in `slot`, its style applied: (B, H, W)."""
    x0, y0, radius = scenes.place[:, slot].unbind(1)
    axis = torch.arange(SIDE, device=x0.device) + 0.5
    x = ((axis - x0[:, None]) / radius[:, None])[:, None, :]
    y = ((axis - y0[:, None]) / radius[:, None])[:, :, None]
    distance = x.new_full((len(scenes), SIDE, SIDE), 1e3)
    for index, name in enumerate(SHAPES):
        chosen = (scenes.shape[:, slot] == index).nonzero()[:, 0]
        if len(chosen):
            distance[chosen] = FIGURES[name](x[chosen], y[chosen])
    return _styled(distance * radius[:, None, None], x, y, radius, scenes.style[:, slot])


def _styled(distance: Tensor, x: Tensor, y: Tensor, radius: Tensor, style: Tensor) -> Tensor:
    """A filled figure's distance -> the distance to its outline, or to its outline and stripes, by style."""
    radius, style = radius[:, None, None], style[:, None, None]
    half = stroke(radius) / 2
    outline = (distance + half).abs() - half
    period = stripe_period(radius)
    phase = torch.remainder((x + y) * radius * math.sqrt(0.5), period)
    stripes = torch.maximum(distance, (phase - period / 2).abs() - period / 4)
    striped = torch.minimum(outline, stripes)
    distance = torch.where(style == STYLES.index("outlined"), outline, distance)
    return torch.where(style == STYLES.index("striped"), striped, distance)


def stroke(radius: Tensor) -> Tensor:
    """Width of an outline in pixels."""
    return torch.clamp(0.13 * radius, 4.5, 8)


def stripe_period(radius: Tensor) -> Tensor:
    """From one stripe to the next, in pixels."""
    return torch.clamp(0.4 * radius, 12, 22)


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y) - 1


def _ring(x: Tensor, y: Tensor) -> Tensor:
    middle, half = (1 + RING_HOLE) / 2, (1 - RING_HOLE) / 2
    return (torch.sqrt(x * x + y * y) - middle).abs() - half


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """Two arcs over a right angle, scaled so that its box is 2 wide."""
    unit = 1.2071  # width of the unit heart
    x, y = x.abs() * (unit / 2), 0.5511 - y * (unit / 2)
    lobe = torch.sqrt((x - 0.25) ** 2 + (y - 0.75) ** 2) - math.sqrt(2) / 4
    slope = torch.clamp((x + y) / 2, min=0)
    wedge = torch.minimum(x * x + (y - 1) ** 2, (x - slope) ** 2 + (y - slope) ** 2).sqrt() * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, wedge) * (2 / unit)


def _polygon(corners: list[tuple[float, float]]) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance function of a closed polygon."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        x, y = x + torch.zeros_like(y), y + torch.zeros_like(x)
        nearest, inside = torch.full_like(x, 1e6), torch.zeros_like(x, dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
            along = torch.clamp((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = torch.minimum(nearest, (px - ex * along) ** 2 + (py - ey * along) ** 2)
            inside = inside ^ (((y >= ay) != (y >= by)) & ((px * ey < py * ex) == (ey > 0)))
        return torch.where(inside, -nearest.sqrt(), nearest.sqrt())

    return distance


def _star_corners() -> list[tuple[float, float]]:
    """Five points, one up; scaled and shifted so that its box is 2 wide and centred."""
    turns = [math.pi * k / 5 for k in range(10)]
    points = [
        (math.sin(t) * (1, STAR_WAIST)[k % 2], -math.cos(t) * (1, STAR_WAIST)[k % 2]) for k, t in enumerate(turns)
    ]
    scale, top, bottom = 1 / max(x for x, _ in points), min(y for _, y in points), max(y for _, y in points)
    return [(x * scale, (y - (top + bottom) / 2) * scale) for x, y in points]


def _cross_corners() -> list[tuple[float, float]]:
    a = CROSS_ARM
    quarter = [(a, -1.0), (a, -a), (1.0, -a)]
    return [p for q in range(4) for p in (_turned(corner, q) for corner in quarter)]


def _turned(point: tuple[float, float], quarters: int) -> tuple[float, float]:
    x, y = point
    for _ in range(quarters):
        x, y = -y, x
    return x, y


_TALL = math.sqrt(3) / 2  # half the height of the equilateral triangle that is 2 wide

FIGURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _polygon([(0, -_TALL), (1, _TALL), (-1, _TALL)]),
    "star": _polygon(_star_corners()),
    "heart": _heart,
    "ring": _ring,
    "cross": _polygon(_cross_corners()),
    "diamond": _polygon([(0, -1), (0.8, 0), (0, 1), (-0.8, 0)]),
}
