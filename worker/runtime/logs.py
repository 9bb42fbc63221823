"""What the worker writes to its log: one line each, and nothing that is a secret of the owner's or the caller's.

An exception's message may quote anything that went into a call. So every text of the job in hand, and every secret of
the settings, is struck out wherever it appears.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from pydantic import SecretStr

from worker.settings import Settings

log = logging.getLogger("worker")

MIN_REDACTED_LENGTH = 4  # characters; shorter texts, such as a format's name, would blot out half the line
MAX_ESCAPED_LENGTH = 100_000  # characters; longer texts are pictures, in base64, in which there is nothing to escape
MAX_TEXTS = 20_000
REDACTED = "<hidden>"


class RedactingFormatter(logging.Formatter):
    """Formats a record and strikes out what is hidden."""

    def __init__(self) -> None:
        """Nothing is hidden yet."""
        super().__init__("%(levelname)-7s| %(message)s")
        self._owners: tuple[str, ...] = ()
        self._callers: list[tuple[str, ...]] = []  # of each job in hand

    def redact_settings(self, settings: Settings) -> None:
        """Hide the secrets among the settings, for good."""
        values = (getattr(settings, name) for name in Settings.model_fields)
        self._owners = _spellings((value.get_secret_value() for value in values if isinstance(value, SecretStr)), 1)

    @contextmanager
    def redact_job(self, job: Mapping[str, Any]) -> Iterator[None]:
        """Hide every text of this job's input and bucket inside the `with`, whoever writes there.

        A job with more texts than that is refused for it, and nothing of it is ever quoted.
        """
        texts = (text for part in ("input", "s3Config") for text in _texts(job.get(part)))
        hidden = _spellings(islice(texts, MAX_TEXTS))
        self._callers = [*self._callers, hidden]
        try:
            yield
        finally:
            self._callers = [one for one in self._callers if one is not hidden]

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines of a traceback."""
        line = super().format(record)
        for secret in chain(self._owners, *self._callers):
            line = line.replace(secret, REDACTED)
        return line


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


def log_to_stderr() -> RedactingFormatter:
    """Send the worker's own log to standard error.

    Returns:
        what formats it, to be told what to hide.
    """
    formatter = RedactingFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    return formatter
