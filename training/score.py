"""What was asked against what is seen: one `Score` for a picture, and their shares.

It knows specs and what `judge` returns; neither the model nor pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise, permutations

from training.judge import Seen
from training.scenes import Spec, Thing

APART = 12.0  # pixels between two centres along an axis before one is left of or above the other


@dataclass(frozen=True)
class Score:
    """Right and asked, for each question, in one picture; (0, 0) where the prompt does not ask."""

    background: tuple[int, int]
    count: tuple[int, int]
    colour: tuple[int, int]
    shape: tuple[int, int]
    small_shape: tuple[int, int]
    size: tuple[int, int]
    style: tuple[int, int]
    relation: tuple[int, int]
    one: tuple[int, int]
    two: tuple[int, int]
    three: tuple[int, int]
    all: tuple[int, int]


def score(spec: Spec, background: str, seen: list[Seen]) -> Score:
    """Compare one picture with its prompt. Objects are matched to the names so that most is right."""
    slots: list[Seen | None] = [*seen, *[None] * len(spec.things)]
    matches = permutations(slots[: max(len(seen), len(spec.things))][:5], len(spec.things))
    best = max(matches, key=lambda match: (_rights(spec.things, match), _in_order(spec.layout, match)))
    pairs = list(zip(spec.things, best, strict=True))
    asked = {
        "background": _tally([(spec.background, background)]),
        "count": (int(len(seen) == len(spec.things)), 1),
        **{name: _tally([(getattr(t, name), getattr(s, name, None)) for t, s in pairs]) for name in NAMED},
        "small_shape": _tally([(t.shape, getattr(s, "shape", None)) for t, s in pairs if t.size == "small"]),
        "relation": (int(_in_order(spec.layout, best)), 1) if len(pairs) == 2 and spec.layout in AXES else (0, 0),
    }
    right = all(good == total for good, total in asked.values()) and _in_order(spec.layout, best)
    whole = {name: (int(right), 1) if len(pairs) == n else (0, 0) for n, name in enumerate(("one", "two", "three"), 1)}
    return Score(**asked, **whole, all=(int(right), 1))


NAMED = ("shape", "colour", "size", "style")
# layout -> (axis, sign): the things' centres, in the order named, must rise along it.
AXES = {
    "left of": ("x", 1),
    "right of": ("x", -1),
    "above": ("y", 1),
    "below": ("y", -1),
    "row": ("x", 1),
    "column": ("y", 1),
}


def _rights(things: Iterable[Thing], match: Iterable[Seen | None]) -> int:
    pairs = zip(things, match, strict=True)
    return sum(
        getattr(t, name) is not None and getattr(t, name) == getattr(s, name, None) for t, s in pairs for name in NAMED
    )


def _in_order(layout: str, match: tuple[Seen | None, ...]) -> bool:
    """Whether the matched objects stand as the layout says; layouts that say nothing are always right."""
    if None in match:
        return False
    if layout == "between":
        return any(min(b, c) < a < max(b, c) for a, b, c in (_along(match, "x"), _along(match, "y")))
    if layout in ("one over two", "two over one"):
        first, *_, last = heights = _along(match, "y")
        upper, lower = ([first], heights[1:]) if layout == "one over two" else (heights[:2], [last])
        return min(lower) - max(upper) > APART
    if layout not in AXES:
        return True
    axis, sign = AXES[layout]
    centres = [sign * centre for centre in _along(match, axis)]
    return all(later - earlier > APART for earlier, later in pairwise(centres))


def _along(match: tuple[Seen | None, ...], axis: str) -> list[float]:
    return [getattr(seen, axis) for seen in match]


def _tally(pairs: list[tuple[str | None, str | None]]) -> tuple[int, int]:
    """(right, asked) over (asked, seen) pairs."""
    asked = [(want, got) for want, got in pairs if want is not None]
    return sum(want == got for want, got in asked), len(asked)


def shares(scores: list[Score]) -> dict[str, float | None]:
    """Per cent right of each question over many pictures; None where it was never asked."""
    table: dict[str, float | None] = {}
    for field in fields(Score):
        right, asked = (sum(getattr(s, field.name)[k] for s in scores) for k in (0, 1))
        table[field.name] = 100 * right / asked if asked else None
    return table
