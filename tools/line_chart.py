"""Lines as SVG, on two logarithmic scales."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tools.chart import INK

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 420, 60, 210, 30, 44  # pixels
COLOURS = ("#9aa5b1", "#c2410c", "#2f6fdb", "#15803d", "#7c3aed", "#0f766e", "#a16207", "#be185d")
GRID = "#e4e7eb"
LABEL_GAP = 15


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        points: x and y, both above 0, from left to right.
    """

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A place on a scale, and what is written there."""

    at: float
    text: str


def draw_lines(title: str, lines: Sequence[Line], across: Sequence[Tick], up: Sequence[Tick]) -> str:
    """The lines; the scales reach from their first tick to their last."""
    x, y = _scale(across, LEFT, WIDTH - RIGHT), _scale(up, HEIGHT - BOTTOM, TOP)
    ends = _spread([y(line.points[-1][1]) for line in lines])
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12" fill="{INK}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
            *(_draw_across(tick, x(tick.at)) for tick in across),
            *(_draw_up(tick, y(tick.at)) for tick in up),
            *(
                part
                for line, colour, end in zip(lines, COLOURS, ends, strict=False)
                for part in _draw_line(line, colour, [(x(a), y(b)) for a, b in line.points], end)
            ),
            "</svg>\n",
        ]
    )


def _scale(ticks: Sequence[Tick], first: float, last: float) -> Callable[[float], float]:
    """A value -> its place between these two, in pixels."""
    low, high = math.log(ticks[0].at), math.log(ticks[-1].at)
    return lambda value: first + (math.log(value) - low) / (high - low) * (last - first)


def _spread(ends: Sequence[float]) -> list[float]:
    """Where the labels of lines that end at these heights stand, so that none covers another."""
    places = [0.0] * len(ends)
    lowest = -math.inf
    for number in sorted(range(len(ends)), key=lambda one: ends[one]):
        places[number] = lowest = max(ends[number], lowest + LABEL_GAP)
    return places


def _draw_across(tick: Tick, x: float) -> str:
    return (
        f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>'
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(tick.text)}</text>'
    )


def _draw_up(tick: Tick, y: float) -> str:
    return (
        f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(tick.text)}</text>'
    )


def _draw_line(line: Line, colour: str, points: Sequence[tuple[float, float]], end: float) -> Iterator[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
    yield f'<text x="{points[-1][0] + 8:.1f}" y="{end + 4:.1f}" fill="{colour}">{escape(line.label)}</text>'
