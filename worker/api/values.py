"""How values may be written: numbers, true and false also as text, as forms and other services' clients send them."""

import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Text = Annotated[str, Field(max_length=5_000)]
Reference = Annotated[str, Field(min_length=1)]  # of a picture; its length is bounded where it is read

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_WORDS = {"true": True, "false": False}
MAX_WHOLE = 2**53  # up to which every whole number has a float of its own


class StrictObject(BaseModel):
    """An object that callers write; unknown fields and values of another type are refused, but for numbers as text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> object:
        kinds = _kinds(cls, str(info.field_name))
        if isinstance(value, list) and list in kinds:
            return [read_value(one, kinds) for one in value]
        return read_value(value, kinds)


def read_value(value: object, kinds: frozenset[type]) -> object:
    """The number, or the true or false, that a text stands for where one of these kinds is wanted, and no text.

    A number with nothing behind its point is whole. What is none stays as it is.
    """
    if isinstance(value, str) and str not in kinds:
        return _read_text(value, kinds)
    wants_whole = int in kinds and float not in kinds
    if isinstance(value, float) and wants_whole and value.is_integer() and abs(value) <= MAX_WHOLE:
        return int(value)
    return value


def _read_text(text: str, kinds: frozenset[type]) -> object:
    if bool in kinds:
        return _WORDS.get(text.lower(), text)
    if int in kinds and _INTEGER.fullmatch(text):
        return int(text)
    if kinds & {int, float} and _NUMBER.fullmatch(text):
        number = float(text)
        if float in kinds:
            return number if abs(number) < float("inf") else text
        return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else text
    return text


@cache
def _kinds(owner: type[BaseModel], name: str) -> frozenset[type]:
    """The types that a field takes, those inside a list among them."""
    return frozenset(_walk(owner.model_fields[name].annotation))


def _walk(annotation: Any) -> Iterator[type]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _walk(get_args(annotation)[0])
    elif origin in (Union, UnionType, list):
        if origin is list:
            yield list
        for one in get_args(annotation):
            yield from _walk(one)
    elif isinstance(annotation, type):
        yield annotation
