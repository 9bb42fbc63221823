"""Validation errors -> one sentence for each bad field: what came, and what is allowed."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.api.schema import spellings

MAX_PROBLEMS = 100  # in one answer; a request has fewer fields than that
_CANONICAL = spellings()


def describe_problems(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    """One sentence for each bad field; the variants that pydantic tries for one value become one sentence."""
    sentences: dict[str, list[str]] = {}
    for detail in error.errors()[:MAX_PROBLEMS]:
        sentences.setdefault(_sentence_start(detail, given), []).append(_allowed(detail, given))
    listed = [f"{start}{' or '.join(dict.fromkeys(rest))}" for start, rest in sentences.items()]
    more = error.error_count() - MAX_PROBLEMS
    return [*listed, f"and {more} more problems"] if more > 0 else listed


# A default that does not fit is told under the field that made it so.
_MADE_BY = {"height": "width", "num_images": "prompt"}


def _sentence_start(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    name = str((*detail["loc"], "input")[0])[:80]  # a name that is no Unicode has no place of its own
    if detail["type"] == "missing":
        return f"{name}: "
    if name in _MADE_BY and name not in given:
        name = _MADE_BY[name]
        return f"{name}: got {summarize(given.get(name))}; "
    value = given.get(name, detail["input"])
    return f"{location(detail)[:80] if isinstance(value, dict) else name}: got {summarize(detail['input'])}; "


def _allowed(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    if detail["type"] == "missing":
        return "required, but missing"
    if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
        return _unknown(str(detail["loc"][0]), given)
    message = detail["msg"]
    return message if detail["type"] == "not_allowed" else message[0].lower() + message[1:]


def _unknown(name: str, given: Mapping[str, Any]) -> str:
    if name in _CANONICAL:  # a second spelling of a field that is given already
        twin = next(other for other in given if other != name and _CANONICAL.get(other) == _CANONICAL[name])
        return f"means the same as {twin}; give one of them"
    close = difflib.get_close_matches(name, _CANONICAL, n=1, cutoff=0)
    return f"unknown field; the nearest is {close[0]}"


def location(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in detail["loc"]) or "input"


def summarize(value: object) -> str:
    """What came, short enough to read and never a flood."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
