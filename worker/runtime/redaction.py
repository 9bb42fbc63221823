"""What a job brought, found in texts that others wrote: an exception may quote anything that went into a call.

A job's texts are looked for in such a text alone, and only once there is one. So the words of the log itself stay what
they are, and a job whose texts nobody quotes costs nothing, however large it is.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from unicodedata import normalize
from urllib.parse import quote, quote_plus, unquote

from pydantic import BaseModel

from worker.api.schema import S3Config, spellings
from worker.api.values import StrictObject
from worker.text import REDACTED

ALIKE = 8  # characters in a row that stand in a job's text too are from there
MIN_WORD = 4  # letters of a word that is hidden by itself; a shorter text only where it stands in quotation marks
MAX_SEARCHED = 100_000  # characters of all jobs in hand; if they brought more, nothing that others wrote is shown
MAX_VALUES = 1_000_000  # looked at for texts
MIN_BLOB = 10_000  # characters in one row: a picture in base64, known by its ends and by its look
BLOB_END = 200

_OBJECTS: tuple[type[BaseModel], ...] = (*StrictObject.__subclasses__(), S3Config)
_FIELDS = frozenset(spellings()).union(*(kind.model_fields for kind in _OBJECTS))  # names that no job has brought
_BLOB = re.compile("[!-~]+")
_WORD = re.compile(rf"\w{{{MIN_WORD},}}")


@dataclass
class Brought:
    """What one job brought.

    Attributes:
        raw: the job as it came.
        complete: False as long as it brings texts inside of a picture, that nobody has read yet.
    """

    raw: Mapping[str, object]
    complete: bool = True
    _further: list[str] = field(default_factory=list)
    _texts: list[str] | None = None

    def add(self, texts: Iterable[str]) -> None:
        """These are from the job, too, and now all are known."""
        self._further, self._texts, self.complete = [*texts], None, True

    def texts(self) -> list[str] | None:
        """What to look for, in small letters, spelled as it may be quoted; None if that is too much, or not known."""
        if not self.complete:
            return None
        if self._texts is None:
            values = [value for name, value in self.raw.items() if name != "id"]
            self._texts = _collect([*values, self._further])
        return self._texts if sum(map(len, self._texts)) <= MAX_SEARCHED else None


def hide_brought(text: str, jobs: Iterable[Brought], parts: bool) -> str:
    """The text without what these jobs brought.

    Args:
        parts: hide words and other parts of it, too, which is for texts of others: they may quote those.
    """
    folded = _fold(text)
    hidden = bytearray(len(text))
    look = _Parts(folded).of if parts else _whole
    searched = 0
    for job in jobs:
        texts = job.texts()
        searched += sum(map(len, texts or ()))
        if texts is None or searched > MAX_SEARCHED:
            return REDACTED
        for piece in {piece for one in texts for piece in look(one)}:
            _mark(hidden, folded, piece)
    return _blank(text, hidden)


class _Parts:
    """What of a job's texts stands in one text."""

    def __init__(self, text: str) -> None:
        self._alike = {text[at : at + ALIKE] for at in range(len(text) - ALIKE + 1)}
        self._words = set(_WORD.findall(text))

    def of(self, brought: str) -> Iterator[str]:
        """The words that both have, whatever else is alike, and it as a whole if it is short."""
        yield from self._alike.intersection(brought[at : at + ALIKE] for at in range(len(brought) - ALIKE + 1))
        yield from self._words.intersection(_WORD.findall(brought))
        if 0 < len(brought) < ALIKE:
            yield from (f"'{brought}'", f'"{brought}"', *_whole(brought))


def _whole(brought: str) -> Iterator[str]:
    if len(brought) >= MIN_WORD:
        yield brought


def _collect(values: list[object]) -> list[str]:
    """The texts of these values and how they may be spelled, a little more than are searched at most."""
    found: list[str] = []
    size = 0
    for text in _walk(values):
        for one in {_fold(spelled) for spelled in _spell(text)}:
            found.append(one)
            size += len(one)
        if size > MAX_SEARCHED:
            break
    return found


def _walk(values: list[object]) -> Iterator[str]:
    """Every text in JSON values, and what names them; not by recursion, which a deeply nested one would exhaust."""
    waiting, left = values, MAX_VALUES
    while waiting and left:
        one, left = waiting.pop(), left - 1
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            waiting.extend(one.values())
            waiting.extend(name for name in one if name not in _FIELDS)
        elif isinstance(one, Iterable):
            waiting.extend(islice(one, MAX_VALUES))
    if waiting:
        yield " " * (MAX_SEARCHED + 1)


def _spell(text: str) -> set[str]:
    """How a text may be quoted: whole, line by line, from a URL the rest, and each of them escaped."""
    if len(text) >= MIN_BLOB and _BLOB.fullmatch(text):
        return {text[:BLOB_END], text[-BLOB_END:]}
    if len(text) > MAX_SEARCHED:
        return {text}
    spelled: set[str] = set()
    for one in {text, *text.splitlines(), *(text[at:] for at in _find_url_parts(text))}:
        encoded = one.encode("utf-8", "surrogatepass")
        spelled |= {one, repr(one)[1:-1], ascii(one)[1:-1], json.dumps(one)[1:-1], repr(encoded)[2:-1]}
        spelled |= {unquote(one), quote(encoded), quote_plus(encoded), normalize("NFKC", one), normalize("NFD", one)}
        spelled.add(one.upper())  # of a letter that is two large ones
    return spelled


def _find_url_parts(text: str) -> Iterator[int]:
    """Where the host, the path and the query of a URL begin; libraries name them one by one."""
    scheme = text.find("://")
    if scheme >= 0:
        host = max(scheme + 3, text.find("@", scheme) + 1)
        yield from {host, *(text.find(mark, host) + past for mark, past in (("/", 0), ("?", 1)))} - {-1, 0}


def _fold(text: str) -> str:
    """In small letters, each where it stood and whatever is beside it; of two letters Python would say otherwise."""
    return text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower().replace("\u03c2", "\u03c3")


def _mark(hidden: bytearray, text: str, piece: str) -> None:
    at = text.find(piece)
    while at >= 0:
        hidden[at : at + len(piece)] = b"\x01" * len(piece)
        at = text.find(piece, at + 1)


def _blank(text: str, hidden: bytearray) -> str:
    """The text with one mark in place of each run of what is hidden."""
    pieces, shown = [], 0
    for run in re.finditer(b"\x01+", hidden):
        pieces += [text[shown : run.start()], REDACTED]
        shown = run.end()
    return "".join([*pieces, text[shown:]])
