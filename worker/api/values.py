"""How values may be written: numbers, true and false also as text; and with which of them a field asks for nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


def _check_text(text: str) -> str:
    """No file of a picture can hold a NUL in its text."""
    if "\0" in text:
        raise PydanticCustomError("nul", "should hold no NUL character")
    return text


Text = Annotated[str, Field(max_length=5_000), AfterValidator(_check_text)]
Reference = Annotated[str, Field(min_length=1)]  # of a picture; its length is bounded where it is read

ANYTHING = object()  # among the values of a field that asks for nothing whatever it holds
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
        kinds = list_kinds(cls, str(info.field_name))
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
def list_kinds(owner: type[BaseModel], name: str) -> frozenset[type]:
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


@dataclass(frozen=True)
class Unasked:
    """Values with which a field asks for nothing where other services have it; it counts as left out.

    Attributes:
        names: the spellings for which that holds; all if none is named.
    """

    values: tuple[str, ...]
    names: tuple[str, ...] = ()

    def asks_nothing(self, name: str, value: object) -> bool:
        """Whether the field, written so, is as good as left out with this value."""
        meant = not self.names or name in self.names
        return meant and isinstance(value, str) and value.strip().casefold() in self.values

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) if self.names else {"anyOf": [handler(schema), {"enum": list(self.values)}]}


class Neutral:
    """A field that is taken where it asks for nothing, and else refused, or taken with a warning.

    Attributes:
        values: those that ask for nothing, beside null; ANYTHING for all.
        instead: what to write instead of others, or why they have no effect.
        warns: whether others are taken with a warning.
        beside: the field without which it asks for nothing, whatever it holds.
    """

    def __init__(self, *values: object, instead: str = "", warns: bool = False, beside: str = "") -> None:
        self.values, self.instead, self.warns, self.beside = values, instead, warns, beside

    def asks_nothing(self, value: object) -> bool:
        """Whether the field is as good as left out with this value."""
        return value is None or ANYTHING in self.values or any(_is_same(value, one) for one in self.values)

    def check(self, value: object) -> object:
        """The value, if it may stand here."""
        if self.warns or self.asks_nothing(value):
            return value
        raise PydanticCustomError("elsewhere", "{instead}", {"instead": self.instead})

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {} if self.warns or ANYTHING in self.values else {"enum": [*self.values, None]}


def _is_same(value: object, neutral: object) -> bool:
    """Whether it is this value, be it written as text or in other letters."""
    if isinstance(neutral, str):
        return isinstance(value, str) and value.strip().casefold() == neutral.casefold()
    read = read_value(value, frozenset({type(neutral), *([float] if isinstance(neutral, int) else [])}))
    return isinstance(read, bool) == isinstance(neutral, bool) and read == neutral
