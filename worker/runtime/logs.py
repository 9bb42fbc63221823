"""What the worker writes to its log: JSON on the platform, as the SDK does, and nothing that is anybody's secret.

An exception's message may quote anything that went into a call. So every text of the job in hand, and every secret of
the settings, is struck out wherever it appears.
"""

import json
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, islice
from typing import Any

from pydantic import SecretStr

from worker.errors import make_printable
from worker.settings import Settings

log = logging.getLogger("worker")

MIN_REDACTED_LENGTH = 4  # characters; shorter texts, such as a format's name, would blot out half the line
MAX_ESCAPED_LENGTH = 100_000  # characters; longer texts are pictures, in base64, in which there is nothing to escape
MAX_TEXTS = 20_000
REDACTED = "<hidden>"
_LEVELS = {"WARNING": "WARN"}  # as the SDK spells them


_job: ContextVar[str | None] = ContextVar("job", default=None)  # whose lines these are


class RedactingFormatter(logging.Formatter):
    """Formats a record and strikes out what is hidden; whole lines for people, or each an object of JSON."""

    def __init__(self, as_json: bool = False) -> None:
        """Nothing is hidden yet."""
        super().__init__("%(message)s")
        self._as_json = as_json
        self._owners: tuple[str, ...] = ()
        self._callers: list[tuple[str, ...]] = []  # of each job in hand; never changed, only replaced
        self._lock = threading.Lock()

    def redact_settings(self, settings: Settings) -> None:
        """Hide the secrets among the settings, for good."""
        values = (getattr(settings, name) for name in Settings.model_fields)
        self._owners = _spellings((value.get_secret_value() for value in values if isinstance(value, SecretStr)), 1)

    @contextmanager
    def in_hand(self, job_id: str, job: Mapping[str, Any]) -> Iterator[None]:
        """Inside the `with`, lines carry this id, and every text of the job's input and bucket is hidden everywhere.

        A job with more texts than that is refused for it, and nothing of it is ever quoted.
        """
        texts = (text for part in ("input", "s3Config") for text in _texts(job.get(part)))
        hidden = _spellings(islice(texts, MAX_TEXTS))
        with self._lock:
            self._callers = [*self._callers, hidden]
        token = _job.set(job_id)
        try:
            yield
        finally:
            _job.reset(token)
            with self._lock:
                self._callers = [one for one in self._callers if one is not hidden]

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message on one line; a name that it quotes can neither forge a line nor move a terminal's cursor."""
        return make_printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The traceback, indented for the same reason."""
        return "\n".join(f"  {make_printable(line)}" for line in super().formatException(ei).split("\n"))

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines of a traceback; in JSON with the figures that the record brings."""
        text = super().format(record)
        for secret in chain(self._owners, *self._callers):
            text = text.replace(secret, REDACTED)
        job_id, level = _job.get(), _LEVELS.get(record.levelname, record.levelname)
        if self._as_json:
            line = {"requestId": job_id, "message": text, "level": level, **getattr(record, "figures", {})}
            return json.dumps(line)
        return f"{level:<7}| {job_id} | {text}" if job_id else f"{level:<7}| {text}"


def _spellings(texts: Iterable[str], shortest: int = MIN_REDACTED_LENGTH) -> tuple[str, ...]:
    """The texts as messages quote them, the longest first: whole, escaped, line by line, and from a URL the rest."""
    found: set[str] = set()
    for text in texts:
        if len(text) > MAX_ESCAPED_LENGTH:
            found.add(text)
            continue
        pieces = {text, *text.splitlines(), *(text[at:] for at in _url_parts(text))}
        for piece in pieces:
            found |= {piece, repr(piece)[1:-1], ascii(piece)[1:-1], json.dumps(piece)[1:-1]}
            found.add(json.dumps(piece, ensure_ascii=False)[1:-1])
    return tuple(sorted((text for text in found if len(text) >= shortest), key=len, reverse=True))


def _url_parts(text: str) -> Iterator[int]:
    """Where the host, the path and the query of a URL begin; libraries name them one by one."""
    scheme = text.find("://")
    if scheme >= 0:
        host = max(scheme + 3, text.find("@", scheme) + 1)
        yield from {host, *(text.find(mark, host) + past for mark, past in (("/", 0), ("?", 1)))} - {-1, 0}


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value; not by recursion, which a deeply nested one would exhaust."""
    waiting: list[object] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, Iterable):
            waiting.extend(one)


def log_to_stderr(as_json: bool = False) -> RedactingFormatter:
    """Send the worker's own log to standard error.

    Args:
        as_json: for the platform, whose log is read by programs.

    Returns:
        what formats it, to be told what to hide.
    """
    formatter = RedactingFormatter(as_json)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    return formatter
