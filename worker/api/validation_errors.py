"""What is wrong with a request -> one sentence for each bad field: what came, and what is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from worker.api.elsewhere import STANDS_FOR
from worker.api.schema import Fields, spellings
from worker.api.values import list_kinds
from worker.nearest import suggest

# What a field takes that is written in several ways, of which pydantic is told one.
_FORMS = {
    "prompt": "should be a string or a list of strings",
    "seed": "should be an integer or a list of integers",
    "controlnet": "should be an object with a name and an image, or a list of them",
    "loras": "should be a name, an object with a name and a scale, or a list of them",
}
# Each in a list of them.
_EACH = {
    "controlnet": "should be an object with a name and an image",
    "loras": "should be a name, or an object with a name and a scale",
}
_WORDS = {
    "bool_type": "should be true or false",
    "float_type": "should be a number",
    "int_type": "should be an integer",
    "list_type": "should be a list",
    "model_type": "should be an object",
    "string_too_short": "should not be empty",
    "string_type": "should be a string",
    "too_short": "should not be empty",
}
MAX_KNOWN_TOLD = 6  # names of an object's fields
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
    if field == "hires" and "hires" not in given and "enable_hr" in given:  # whose parts are fields of their own
        field, dot, part = part or "enable_hr", "", ""
    return f"{_find_written(field, given)}{dot}{part}{colon}{rest}"


def spell_as_written(told: str, given: Mapping[str, Any]) -> str:
    """The sentence of a field of our own, or of a part of one, in the caller's spelling of it."""
    place, colon, rest = told.partition(": ")
    field, dot, part = place.partition(".")
    return f"{_find_spelling(field, given) or field}{dot}{part}{colon}{rest}"


def _find_written(field: str, given: Mapping[str, Any]) -> str:
    """How the caller wrote this field, or what stands for it; its own name, if the caller wrote neither."""
    standing = (name for name in given if field in STANDS_FOR.get(_CANONICAL.get(name, ""), ()))
    return _find_spelling(field, given) or next(standing, field)


def _find_spelling(field: str, given: Mapping[str, Any]) -> str | None:
    """That which the caller chose of this field's; None, if the caller wrote none."""
    return next((name for name, meant in _CANONICAL.items() if meant == field and name in given), None)


def describe_errors(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    """One sentence for each field that is not as the table says, in the caller's order, unknown ones last.

    The variants that pydantic tries for one value become one sentence.
    """
    places = {name: place for place, name in enumerate(given)}
    found = error.errors()
    lists = {_find_name(one) for one in found if _is_in_a_list(one)}  # which are lists as they should be
    details = [one for one in found if _is_in_a_list(one) or _find_name(one) not in lists]
    details.sort(key=lambda one: (_is_unknown(one), places.get(_find_name(one), -1)))
    sentences: dict[str, list[str]] = {}
    for detail in details[:MAX_PROBLEMS]:
        place = _find_place(detail, given)
        came = "" if detail["type"] == "missing" else f"got {summarize(detail['input'])}; "
        sentences.setdefault(f"{place}: {came}", []).append(_say_allowed(detail, place, given))
    listed = [f"{start}{' or '.join(dict.fromkeys(rest))}" for start, rest in sentences.items()]
    more = len(details) - MAX_PROBLEMS
    return [*listed, f"and {more} more problems"] if more > 0 else listed


def _find_name(detail: ErrorDetails) -> str:
    return str(detail["loc"][0]) if detail["loc"] else "input"  # a name that is no Unicode has no place of its own


def _is_unknown(detail: ErrorDetails) -> bool:
    return detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1


def _is_in_a_list(detail: ErrorDetails) -> bool:
    return any(isinstance(part, int) for part in detail["loc"])


def _find_place(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    """Where in what came it is, with dots between; 0 for one that stands alone where several may stand.

    Variants that were tried are no place, nor are names that are none.
    """
    name = _find_name(detail)
    place, value = [name[:80]], given.get(name, detail["input"])
    for part in detail["loc"][1:]:
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            value = value[part]
        elif isinstance(value, dict) and not isinstance(part, int) and _is_key(part, value, detail):
            value = value.get(part)
        elif not (isinstance(part, int) and isinstance(value, dict)):
            continue
        place.append(str(part)[:80])
    return ".".join(place)


def _is_key(part: str, value: Mapping[str, Any], detail: ErrorDetails) -> bool:
    return part.isidentifier() and (part in value or detail["type"] == "missing")


def _say_allowed(detail: ErrorDetails, place: str, given: Mapping[str, Any]) -> str:
    name, kind = _find_name(detail), detail["type"]
    own = _CANONICAL.get(name, name)
    if kind == "missing":
        return "required, but missing"
    if _is_unknown(detail):
        return _say_unknown(name, given)
    if kind == "extra_forbidden":
        known = _list_inner_names(own)
        few = len(known) <= MAX_KNOWN_TOLD
        near = suggest(place.rpartition(".")[2], known)
        return f"unknown field; known there: {', '.join(known)}" if few else f"unknown field{near}"
    if name == "quality" and kind == "int_type":
        return "should be an integer, of jpeg and webp; `num_inference_steps` says how long is drawn"
    if own in _FORMS and kind.endswith("_type") and place == name:
        return _FORMS[own]
    return _EACH.get(own, say_wrong(detail)) if kind == "model_type" else say_wrong(detail)


def say_wrong(detail: ErrorDetails) -> str:
    """What is allowed where this value came."""
    told = detail["msg"][0].lower() + detail["msg"][1:]
    return _WORDS.get(detail["type"], told.removeprefix("input "))


def _list_inner_names(field: str) -> list[str]:
    """What the object in a field, or each in its list, holds."""
    return [name for kind in list_kinds(Fields, field) if issubclass(kind, BaseModel) for name in kind.model_fields]


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
