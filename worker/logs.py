"""What the worker writes to its log: one line each, and nothing that is a secret of the owner's or the caller's.

An exception's message may quote anything that went into a call. So every text of the job in hand, and every secret of
the settings, is struck out wherever it appears.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from worker.settings import Settings

log = logging.getLogger("worker")

SHORTEST = 4  # characters; shorter texts, such as a format's name, would blot out half the line
HIDDEN = "<hidden>"


class Discreet(logging.Formatter):
    """Formats a record and strikes out what is hidden."""

    def __init__(self) -> None:
        """Nothing is hidden yet."""
        super().__init__("%(levelname)-7s| %(message)s")
        self._owners: tuple[str, ...] = ()
        self._callers: tuple[str, ...] = ()

    def hide_settings(self, settings: Settings) -> None:
        """Hide the secrets among the settings, for good."""
        values = (getattr(settings, name) for name in Settings.model_fields)
        self._owners = tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))

    def hide_job(self, job: Mapping[str, Any]) -> None:
        """Hide every text of this job's input and bucket, until the next job."""
        texts = {text for part in ("input", "s3Config") for text in _texts(job.get(part))}
        self._callers = tuple(sorted((text for text in texts if len(text) >= SHORTEST), key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines of a traceback."""
        line = super().format(record)
        for secret in (*self._owners, *self._callers):
            line = line.replace(secret, HIDDEN)
        return line


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


def log_to_stderr() -> Discreet:
    """Send the worker's own log to standard error.

    Returns:
        what formats it, to be told what to hide.
    """
    discreet = Discreet()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(discreet)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    return discreet
