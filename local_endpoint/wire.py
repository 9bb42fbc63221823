"""JSON and bodies on the wire: read within bounds and by the standard, written so that any reader takes them."""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from fastapi import Request, Response
from starlette.convertors import Convertor, register_url_convertor

MAX_NESTING = 500  # of lists and objects; json's own recursion ends at about 1,000, wherever the call stack is by then


def read_json(raw: bytes) -> Any:
    """The value in a JSON text of UTF-8.

    Raises:
        ValueError: it is none; what Python alone reads and writes (NaN, Infinity) is none either, nor is a number that
            only infinity could stand for, or what is nested deeper than 500 lists and objects.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_read_float)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_NESTING} lists and objects") from None
    if _is_deeper(value, MAX_NESTING):
        raise ValueError(f"nested deeper than {MAX_NESTING} lists and objects")
    return value


def write_json(value: Any) -> bytes:
    """A JSON text of ASCII alone: a lone surrogate, which JSON can hold and UTF-8 cannot, is passed on as it came."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


class JSONAnswer(Response):
    """An answer whose content is written by `write_json`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The content as bytes."""
        return write_json(content)


class TooLongError(ValueError):
    """A body is longer than it may be; `size` is what its headers say, or what has come of it."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes are more than the limit of {limit}")
        self.size = size


async def read_body(request: Request, limit: int) -> bytes:
    """A request's body.

    Raises:
        TooLongError: it is longer than `limit` bytes, told before more than these are read.
        starlette.requests.ClientDisconnect: the client has gone before its end.
    """
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    if size > limit:
        raise TooLongError(size, limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLongError(len(body), limit)
    return bytes(body)


class RestOfPath(Convertor[str]):
    """All that follows in a path, `{name:rest}`: slashes and ends of lines too, which Starlette's `path` lacks."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """The text itself."""
        return value

    def to_string(self, value: str) -> str:
        """The text itself."""
        return value


register_url_convertor("rest", RestOfPath())


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _read_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
