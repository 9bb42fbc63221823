"""What a caption asks for (`Spec`), and one picture that does so (`Scene`).

A spec says only what its caption says; everything else is chosen here when a scene is made of it. This file knows
no words and draws nothing.
"""

from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

import numpy as np
import torch

from training.render import Packed
from training.world import COLOURS, RADII, RELATIONS, SHAPES, SIDE, SIZES, STYLES, is_held_out

MARGIN = 8  # pixels between an object and the edge of the picture
GAP = 10  # pixels between two objects
PLACES = ("left", "right", "top", "bottom", "centre")
COUNTS = (0.28, 0.32, 0.40)  # shares of scenes with one, two and three objects
BARE = 0.05  # share of captions that say one word

T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """One object as a caption names it; None where the caption is silent."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    style: str | None = None


@dataclass(frozen=True)
class Spec:
    """What a caption says.

    Attributes:
        things: in the order in which they are named.
        background: its colour.
        layout: "alone"; for two, one of RELATIONS or "beside"; for three, "row" (left to right), "column" (top to
            bottom), "between" (the first between the others), "one over two", "two over one" or "two and one" (the
            first two alike, no order said); for two or three, "together" (no order said), "same" (one description,
            several objects), "same row" or "same column"; for one to three, "bare" (the caption says one attribute of
            the first, or the background, or nothing).
        place: where a lone object stands, one of PLACES.
    """

    things: tuple[Thing, ...]
    background: str | None = None
    layout: str = "alone"
    place: str | None = None


@dataclass(frozen=True)
class GeneratedImage:
    """One object in a scene: nothing left open. Centre and radius in pixels."""

    shape: str
    colour: str
    style: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """One picture, before it is drawn."""

    background: str
    objects: tuple[GeneratedImage, ...] = field(default_factory=tuple)


def sample_spec(random: Random) -> Spec:
    """What a training caption might say."""
    count = random.choices((1, 2, 3), COUNTS)[0]
    if random.random() < BARE:
        return _sample_bare(random, count)
    background = random.choice(list(COLOURS)) if random.random() < 0.85 else None
    if count > 1 and random.random() < 0.1:
        layout = random.choices(("same", "same row", "same column"), (6, 2, 1))[0]
        return Spec((_sample_thing(random, background),) * count, background, layout)
    things = tuple(_sample_thing(random, background) for _ in range(count))
    if count == 3 and random.random() < 0.07:
        return Spec((things[0], things[0], things[2]), background, "two and one")
    if count == 1:
        return Spec(things, background, "alone", random.choice(PLACES) if random.random() < 0.2 else None)
    if count == 2:
        layout = random.choices((*RELATIONS, "beside", "together"), (5, 5, 5, 5, 1, 4))[0]
    else:
        layouts = ("row", "column", "together", "between", "one over two", "two over one")
        layout = random.choices(layouts, (8, 6, 5, 1, 1, 1))[0]
    return Spec(things, background, layout)


def _sample_bare(random: Random, count: int) -> Spec:
    """One attribute, or one background, and nothing more; one in seven says nothing at all."""
    said = random.choices(("colour", "shape", "size", "style", "background", ""), (3, 3, 1, 1, 3, 2))[0]
    values = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES, "style": STYLES}
    first = Thing(**{said: random.choice(values[said])}) if said in values else Thing()
    background = random.choice(list(COLOURS)) if said == "background" else None
    return Spec((first, *[Thing()] * (count - 1)), background, "bare")


def _sample_thing(random: Random, background: str | None) -> Thing:
    """An object of a training caption: nothing held out, never the background's colour."""
    thing = Thing(
        shape=random.choice(SHAPES) if random.random() < 0.96 else None,
        colour=random.choice([c for c in COLOURS if c != background]) if random.random() < 0.92 else None,
        size=random.choice(SIZES) if random.random() < 0.5 else None,
        style=random.choices(STYLES, (1, 2, 2))[0] if random.random() < 0.3 else None,
    )
    if is_held_out(thing.colour, thing.shape, background) or (
        thing.shape == "ring" and thing.style not in (None, "filled")
    ):
        return _sample_thing(random, background)
    return thing


def realise(spec: Spec, random: Random) -> Scene:
    """One picture that does what the spec says; what it leaves open is chosen at random (style: filled)."""
    taken = {thing.colour for thing in spec.things}
    background = spec.background or random.choice([c for c in COLOURS if c not in taken])
    things = _alike([_completed(thing, background, random) for thing in spec.things], spec.layout)
    places = _places(spec, [t.size for t in things], random)
    objects = [
        GeneratedImage(thing.shape or "", thing.colour or "", thing.style or "", *place)
        for thing, place in zip(things, places, strict=True)
    ]
    return Scene(background, tuple(objects))


def _completed(thing: Thing, background: str, random: Random) -> Thing:
    """The same object with shape, colour and style chosen; its size may stay open."""
    shape, colour = thing.shape, thing.colour
    if shape is None:
        styled = thing.style not in (None, "filled")
        free = [s for s in SHAPES if not is_held_out(colour, s, background) and not (styled and s == "ring")]
        shape = random.choice(free)
    if colour is None:
        colour = random.choice([c for c in COLOURS if c != background and not is_held_out(c, shape, background)])
    return replace(thing, shape=shape, colour=colour, style=thing.style or "filled")


def _alike(values: list[T], layout: str) -> list[T]:
    """One value for each object, those of objects that are described as one made the same."""
    if layout.startswith("same"):
        return values[:1] * len(values)
    return [values[0], *values[:1], *values[2:]] if layout == "two and one" else values


def _places(spec: Spec, sizes: list[str | None], random: Random) -> list[tuple[float, float, float]]:
    """Centre and radius for each object, in the order of the spec."""
    radii = [random.uniform(*RADII[size][len(sizes)]) for size in sizes]
    if len(radii) == 1:
        return [(*_alone(spec.place, radii[0], random), radii[0])]
    radii = _alike(radii, spec.layout)
    if spec.layout in ("one over two", "two over one"):
        return _in_two_rows(radii, spec.layout == "one over two", random)
    order, across = _order(spec.layout, len(radii), random)
    along = _spread([radii[i] for i in order], random)
    # One line for the whole scene, and a little freedom for each object around it.
    line = _within(random.gauss(SIDE / 2, 24), max(radii))
    placed: list[tuple[float, float, float]] = [(0, 0, 0)] * len(radii)
    for i, position in zip(order, along, strict=True):
        level = _within(line + random.uniform(-8, 8), radii[i])
        placed[i] = (position, level, radii[i]) if across else (level, position, radii[i])
    return placed


def _in_two_rows(radii: list[float], one_first: bool, random: Random) -> list[tuple[float, float, float]]:
    """One object over two that stand side by side, or two over one; in the order of the spec."""
    pair = radii[1:] if one_first else radii[:2]
    one = radii[0] if one_first else radii[2]
    upper, lower = _spread([one, max(pair)] if one_first else [max(pair), one], random)
    single = (_within(random.gauss(SIDE / 2, 34), one), upper if one_first else lower, one)
    both = [(x, lower if one_first else upper, r) for x, r in zip(_spread(pair, random), pair, strict=True)]
    return [single, *both] if one_first else [*both, single]


def _order(layout: str, count: int, random: Random) -> tuple[list[int], bool]:
    """The objects from left to right (True) or from top to bottom (False), as indices into the spec's things."""
    straight, reverse = list(range(count)), list(reversed(range(count)))
    if layout == "between":
        return random.choice(([1, 0, 2], [2, 0, 1])), random.random() < 0.7
    if layout == "beside":
        return random.choice((straight, reverse)), True
    if layout == "together":  # mostly as one reads
        return (straight if random.random() < 0.8 else random.sample(straight, count)), random.random() < 0.7
    fixed = {"left of": (straight, True), "right of": (reverse, True), "above": (straight, False)}
    fixed |= {"below": (reverse, False), "row": (straight, True), "column": (straight, False)}
    fixed |= {"same row": (straight, True), "same column": (straight, False)}
    return fixed.get(layout, (straight, random.random() < 0.7))


def _spread(radii: list[float], random: Random) -> list[float]:
    """Positions along one axis that keep the objects, in this order, inside the picture and apart."""
    margin, gap = (MARGIN, GAP) if 2 * sum(radii) + 2 * MARGIN + 2 * GAP <= SIDE else (5, 4)
    spare = SIDE - 2 * margin - 2 * sum(radii) - gap * (len(radii) - 1)
    cuts = [random.uniform(0.4, 1) for _ in range(len(radii) + 1)]
    shares = [spare * cut / sum(cuts) for cut in cuts]
    positions, edge = [], float(margin)
    for radius, share in zip(radii, shares, strict=False):
        edge += share + radius
        positions.append(edge)
        edge += radius + gap
    return positions


def _within(position: float, radius: float) -> float:
    return min(max(position, radius + MARGIN), SIDE - radius - MARGIN)


def _alone(place: str | None, radius: float, random: Random) -> tuple[float, float]:
    """The centre of a lone object."""
    middle = SIDE / 2
    x, y = (_within(random.gauss(middle, 34), radius) for _ in range(2))
    if place == "centre":
        x, y = random.uniform(-6, 6) + middle, random.uniform(-6, 6) + middle
    near = _within(random.uniform(0, 0.34 * SIDE), radius)
    sides = {"left": (near, y), "right": (SIDE - near, y), "top": (x, near), "bottom": (x, SIDE - near)}
    return sides.get(place or "", (x, y))


def pack(scenes: list[Scene]) -> Packed:
    """Scenes -> tensors for the renderer."""
    count = len(scenes)
    background = np.zeros((count, 3), np.float32)
    shape = np.full((count, 3), -1, np.int64)
    style = np.zeros((count, 3), np.int64)
    place = np.ones((count, 3, 3), np.float32)
    colour = np.zeros((count, 3, 3), np.float32)
    for i, scene in enumerate(scenes):
        background[i] = COLOURS[scene.background]
        for j, thing in enumerate(scene.objects):
            shape[i, j] = SHAPES.index(thing.shape)
            style[i, j] = STYLES.index(thing.style)
            place[i, j] = thing.x, thing.y, thing.radius
            colour[i, j] = COLOURS[thing.colour]
    arrays = (background / 255, shape, style, place, colour / 255)
    return Packed(*(torch.from_numpy(a) for a in arrays))
