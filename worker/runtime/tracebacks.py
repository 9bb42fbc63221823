"""An exception as text: where it came from and what caused it, with the messages in the form that the caller wants."""

import traceback
from collections.abc import Callable, Iterator

from worker.text import escape, read_text

MAX_FRAMES = 30  # the innermost
MAX_CHAIN = 5  # exceptions that led to one another, the latest
MAX_GROUP = 5  # of a group
MAX_NOTES = 5

_CAUSED = "The above exception was the direct cause of the following exception:"
_MEANWHILE = "During handling of the above exception, another exception occurred:"


def format_exception(error: BaseException, show: Callable[[str], str]) -> str:
    """The lines that Python itself would print, within limits; code is shown as it is, messages by `show`."""
    return "\n".join(_format_chain(error, show, depth=0))


def _format_chain(error: BaseException, show: Callable[[str], str], depth: int) -> Iterator[str]:
    for one, link in reversed([*_follow(error)]):
        yield from _format_one(one, show, depth)
        if link:
            yield from ("", link, "")


def _follow(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """The exception and those that led to it, the latest first, each with what it was to the one before."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    link = ""
    while one is not None and len(seen) < MAX_CHAIN and all(one is not other for other in seen):
        yield one, link
        seen.append(one)
        if one.__cause__ is not None:
            one, link = one.__cause__, _CAUSED
        else:
            one, link = None if one.__suppress_context__ else one.__context__, _MEANWHILE


def _format_one(error: BaseException, show: Callable[[str], str], depth: int) -> Iterator[str]:
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
        yield "".join(frames.format()).rstrip("\n")
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = show(read_text(error))
    yield f"{escape(name)}: {message}" if message else escape(name)
    notes = getattr(error, "__notes__", None)
    for note in (notes if isinstance(notes, list) else [])[:MAX_NOTES]:
        yield f"  {show(read_text(note))}"  # not where a line of the log could begin
    if isinstance(error, BaseExceptionGroup) and depth < MAX_GROUP:
        for inner in error.exceptions[:MAX_GROUP]:
            yield from (f"  | {line}" for text in _format_chain(inner, show, depth + 1) for line in text.split("\n"))
