r"""Weights in prompts, by the rules of AUTOMATIC1111's web UI: `(x)`, `(x:1.3)`, `[x]`, `\(`, and `BREAK`.

A pair of parentheses multiplies the weight of what it holds by 1.1 or by the number at its end, a pair of square
brackets divides it by 1.1. What is never closed acts to the end. Neither kind knows of the other. A backslash makes
the bracket behind it a letter.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

STEP = 1.1
MAX_WEIGHT = 10.0  # either way; beyond it a prompt says nothing any more
_MAX_PRODUCT = 1e30  # of weights inside weights, so that no number overflows

_NUMBER = r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)"
_CLOSE = rf"(?P<close>:\s*+(?P<number>{_NUMBER})\s*+\)|[\])])"
_TOKEN = re.compile(rf"\\(?P<letter>[\\()\[\]])?|{_CLOSE}|[(\[]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\bBREAK\b")


@dataclass(frozen=True)
class Fragment:
    """A part of a prompt and how much it counts; 1 is normal, and what is written may pass `MAX_WEIGHT`."""

    text: str
    weight: float


_Part = tuple[list[str], float]  # a fragment that grows
Sections = tuple[tuple[Fragment, ...], ...]  # a prompt between its BREAKs, each cut where weights change


def read_plain(prompt: str) -> Sections:
    """A prompt that is text and nothing else."""
    return ((Fragment(prompt, 1.0),) if prompt else (),)


def parse_weights(prompt: str) -> Sections:
    """The prompt without its syntax. Takes time in proportion to its length, and never fails."""
    tokens = list(_TOKEN.finditer(prompt))
    factors, closers = _match_brackets(tokens)
    weights = {"(": [1.0], "[": [1.0]}  # of what is open, the innermost last
    sections: list[list[_Part]] = [[]]
    for i, token in enumerate(tokens):
        kind = closers.get(i)
        if kind is not None:
            weights[kind].pop()
        elif i in factors:
            inner = weights[token[0]]
            inner.append(_bound(inner[-1] * factors[i]))
        else:
            _add(sections, token, weights["("][-1] * weights["["][-1])
    return tuple(tuple(Fragment("".join(texts), weight) for texts, weight in section) for section in sections)


def find_marks(prompt: str) -> list[str]:
    r"""What of this syntax is in it: `(`, `[`, `BREAK`, and the backslash of an escape."""
    tokens = list(_TOKEN.finditer(prompt))
    marks = [mark for mark in "([" if any(token[0] == mark for token in tokens)]
    if any(len(_BREAK.split(token[0])) > 1 for token in tokens):
        marks.append("BREAK")
    return [*marks, *(["\\"] if any(token["letter"] for token in tokens) else [])]


def _match_brackets(tokens: list[re.Match[str]]) -> tuple[dict[int, float], dict[int, str]]:
    """Each bracket that opens something -> what it multiplies by; each that closes something -> what had opened it."""
    opened: dict[str, list[int]] = {"(": [], "[": []}
    factors: dict[int, float] = {}
    closers: dict[int, str] = {}
    for i, token in enumerate(tokens):
        if token[0] in opened:
            opened[token[0]].append(i)
            factors[i] = STEP if token[0] == "(" else 1 / STEP
        elif token["close"]:
            kind = "[" if token[0] == "]" else "("
            if opened[kind]:
                closers[i] = kind
                start = opened[kind].pop()
                factors[start] = _bound(float(token["number"])) if token["number"] else factors[start]
    return factors, closers


def _bound(weight: float) -> float:
    return max(-_MAX_PRODUCT, min(weight, _MAX_PRODUCT))


def _add(sections: list[list[_Part]], token: re.Match[str], weight: float) -> None:
    """Put what a token says behind what was said before."""
    for i, text in enumerate(_split(token)):
        if i > 0:
            sections.append([])
        section = sections[-1]
        if text and section and section[-1][1] == weight:
            section[-1][0].append(text)
        elif text:
            section.append(([text], weight))


def _split(token: re.Match[str]) -> Iterator[str]:
    """The token's text between its BREAKs, without the blanks around them."""
    if token[0].startswith("\\"):
        yield token["letter"] or ""
        return
    parts = _BREAK.split(token[0])
    for i, part in enumerate(parts):
        part = part.lstrip() if i > 0 else part
        yield part.rstrip() if i < len(parts) - 1 else part
