"""What is wrong with a request -> one sentence for each bad field: what came, and what is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.api.elsewhere import STANDS_FOR
from worker.api.schema import spellings
from worker.nearest import suggest

MAX_PROBLEMS = 100  # in one answer; a request has fewer fields than that
_CANONICAL = spellings()


@dataclass(frozen=True)
class Problem:
    """A field that may not stay as it is.

    Attributes:
        field: its own name, whichever spelling the job uses.
        allowed: what may stand there instead.
    """

    field: str
    allowed: str


def describe_problem(problem: Problem, given: Mapping[str, Any]) -> str:
    """The sentence for what a rule says, under the name that the caller wrote."""
    name = _find_written(problem.field, given)
    came = summarize(given[name]) if name in given else "nothing"
    return f"{name}: got {came}; {problem.allowed}"


def name_as_written(told: str, given: Mapping[str, Any]) -> str:
    """The sentence of a field of our own, or of a part of one, under the name that the caller wrote."""
    place, colon, rest = told.partition(": ")
    field, dot, part = place.partition(".")
    if field == "hires" and "hires" not in given:  # then its parts are fields of their own
        field, dot, part = part or "enable_hr", "", ""
    return f"{_find_written(field, given)}{dot}{part}{colon}{rest}"


def _find_written(field: str, given: Mapping[str, Any]) -> str:
    """How the caller wrote this field, or what stands for it; its own name, if the caller wrote neither."""
    written = [name for name, meant in _CANONICAL.items() if meant == field and name in given]
    written += [name for name in given if field in STANDS_FOR.get(_CANONICAL.get(name, ""), ())]
    return written[0] if written else field


def describe_errors(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    """One sentence for each field that is not as the table says, in the caller's order, unknown ones last.

    The variants that pydantic tries for one value become one sentence.
    """
    places = {name: place for place, name in enumerate(given)}
    details = sorted(error.errors(), key=lambda one: (_is_unknown(one), places.get(_find_name(one), -1)))
    sentences: dict[str, list[str]] = {}
    for detail in details[:MAX_PROBLEMS]:
        sentences.setdefault(_start_sentence(detail, given), []).append(_say_allowed(detail, given))
    listed = [f"{start}{' or '.join(dict.fromkeys(rest))}" for start, rest in sentences.items()]
    more = len(details) - MAX_PROBLEMS
    return [*listed, f"and {more} more problems"] if more > 0 else listed


def _find_name(detail: ErrorDetails) -> str:
    return str(detail["loc"][0]) if detail["loc"] else "input"  # a name that is no Unicode has no place of its own


def _is_unknown(detail: ErrorDetails) -> bool:
    return detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1


def _start_sentence(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    name = _find_name(detail)[:80]
    if detail["type"] == "missing":
        return f"{name}: "
    value = given.get(name, detail["input"])
    return f"{locate(detail)[:80] if isinstance(value, dict) else name}: got {summarize(detail['input'])}; "


def _say_allowed(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    if detail["type"] == "missing":
        return "required, but missing"
    if _is_unknown(detail):
        return _say_unknown(_find_name(detail), given)
    if detail["type"] == "model_type":  # which names the class
        return "should be an object"
    return detail["msg"][0].lower() + detail["msg"][1:]


def _say_unknown(name: str, given: Mapping[str, Any]) -> str:
    if name in _CANONICAL:  # a second spelling of a field that is given already
        twin = next(other for other in given if other != name and _CANONICAL.get(other) == _CANONICAL[name])
        return f"means the same as {twin}; give one of them"
    return f"unknown field{suggest(name, _CANONICAL)}"


def locate(detail: ErrorDetails) -> str:
    """Where in what came it is, with dots between."""
    return ".".join(str(part) for part in detail["loc"]) or "input"


def summarize(value: object) -> str:
    """What came, short enough to read and never a flood."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
