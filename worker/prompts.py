"""Weights in prompts: `(word:1.3)`, the syntax of AUTOMATIC1111's web UI. Every other parenthesis is plain text."""

import re
from dataclasses import dataclass

HEAVIEST = 4.0  # beyond it a prompt says nothing any more, and what stands there is likely no weight
_NUMBER = re.compile(r":\s*(\d+(?:\.\d+)?|\.\d+)\s*$")


@dataclass(frozen=True)
class Fragment:
    """A part of a prompt and how much it counts; 1 is normal."""

    text: str
    weight: float


def fragments(prompt: str) -> list[Fragment]:
    """The prompt cut where weights change; weights inside weights multiply.

    Joined, the texts are the prompt without its weights. A prompt without any is one fragment of weight 1.
    """
    groups = _groups(prompt)
    if not groups:
        return [Fragment(prompt, 1.0)]
    # Letters that are syntax belong to no fragment.
    weights: list[float | None] = [1.0] * len(prompt)
    for group in groups:
        for i in range(group.start + 1, group.number):
            weight = weights[i]
            weights[i] = None if weight is None else weight * group.weight
        for i in (group.start, *range(group.number, group.end + 1)):
            weights[i] = None
    found: list[Fragment] = []
    for letter, weight in zip(prompt, weights, strict=True):
        if weight is None:
            continue
        if found and found[-1].weight == weight:
            found[-1] = Fragment(found[-1].text + letter, weight)
        else:
            found.append(Fragment(letter, weight))
    return found or [Fragment("", 1.0)]


def is_weighted(prompt: str) -> bool:
    """Whether any weight is written in it."""
    return bool(_groups(prompt))


@dataclass(frozen=True)
class _Group:
    """`(text:1.3)`: where its parenthesis opens, where the colon before the number stands, where it closes."""

    start: int
    number: int
    end: int
    weight: float


def _groups(prompt: str) -> list[_Group]:
    opened: list[int] = []
    found: list[_Group] = []
    for i, letter in enumerate(prompt):
        if letter == "(":
            opened.append(i)
        elif letter == ")" and opened:
            start = opened.pop()
            number = _NUMBER.search(prompt, start + 1, i)
            if number and float(number[1]) <= HEAVIEST and number.start() > start + 1:
                found.append(_Group(start, number.start(), i, float(number[1])))
    return found
