"""Weights in prompts: `(word:1.3)`, the syntax of AUTOMATIC1111's web UI. Every other parenthesis is plain text."""

import re
from dataclasses import dataclass

MAX_WEIGHT = 4.0  # beyond it a prompt says nothing any more, and what stands there is likely no weight
_NUMBER = re.compile(r":\s*(\d+(?:\.\d+)?|\.\d+)\s*$")


@dataclass(frozen=True)
class Fragment:
    """A part of a prompt and how much it counts; 1 is normal."""

    text: str
    weight: float


def parse_weights(prompt: str) -> list[Fragment]:
    """The prompt cut where weights change; weights inside weights multiply, up to the heaviest.

    Joined, the texts are the prompt without its weights. A prompt without any is one fragment of weight 1.
    """
    opened = {group.start: group for group in _groups(prompt)}
    closed = {group.number: group for group in opened.values()}
    weights = [1.0]  # of the groups around a letter, the innermost last
    found: list[Fragment] = []
    end = 0  # of the syntax that belongs to no fragment
    for i, letter in enumerate(prompt):
        if i in opened:
            weights.append(min(weights[-1] * opened[i].weight, MAX_WEIGHT))
            end = i + 1
        elif i in closed:
            weights.pop()
            end = closed[i].end + 1
        if i < end:
            continue
        if found and found[-1].weight == weights[-1]:
            found[-1] = Fragment(found[-1].text + letter, weights[-1])
        else:
            found.append(Fragment(letter, weights[-1]))
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
            colon = prompt.rfind(":", start + 2, i)  # something to weigh stands before it
            number = _NUMBER.match(prompt, colon, i) if colon > start else None
            if number and float(number[1]) <= MAX_WEIGHT:
                found.append(_Group(start, colon, i, float(number[1])))
    return found
