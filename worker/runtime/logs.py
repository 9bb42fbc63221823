"""What the worker writes to its log: JSON on the platform, as the SDK does, and nothing that is anybody's secret.

A line is the worker's own sentence, with values in it. The sentence, numbers, levels and ids are never touched. In the
values, and in all that others wrote (exceptions, whose message may quote anything that went into a call, and the lines
of libraries), what jobs in hand have brought is hidden, and what looks like an address or a key.
"""

import json
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from numbers import Number
from textwrap import indent
from typing import Any, TextIO
from urllib.parse import quote

from pydantic import SecretStr

from worker.errors import WorkerError
from worker.runtime.redaction import Brought, hide_brought
from worker.runtime.tracebacks import format_exception
from worker.settings import Settings
from worker.text import REDACTED, Own, escape, hide_addresses, read_text, shorten

log = logging.getLogger("worker")

MAX_JOB_LINES = 100  # that one job can cause; what is more is counted
MAX_LINE = 20_000  # characters
MAX_SHOWN_ID = 500
MAX_OWN_VALUE = 500  # characters; no name or sentence of the worker's is longer
_LEVELS = {"WARNING": "WARN"}  # as the SDK spells them
_ALWAYS = "figures"  # a record with them is written however many were before


@dataclass
class _JobLines:
    """Whose lines these are, and how many there were."""

    id: str
    brought: Brought
    count: int = 0

    @property
    def left_out(self) -> int:
        """How many were not written."""
        return max(self.count - MAX_JOB_LINES, 0)


_job: ContextVar[_JobLines | None] = ContextVar("job", default=None)


class RedactingFormatter(logging.Formatter):
    """Formats a record and hides what is secret; whole lines for people, or each an object of JSON."""

    def __init__(self, as_json: bool = False) -> None:
        """Nothing is hidden yet."""
        super().__init__()
        self._as_json = as_json
        self._owners: tuple[str, ...] = ()
        self._in_hand: tuple[Brought, ...] = ()  # never changed, only replaced
        self._lock = threading.Lock()

    def redact_settings(self, settings: Settings) -> None:
        """Hide the secrets among the settings, for good."""
        values = (getattr(settings, name) for name in Settings.model_fields)
        self._owners = _spell(value.get_secret_value() for value in values if isinstance(value, SecretStr))

    @contextmanager
    def in_hand(self, job_id: str, job: Mapping[str, Any]) -> Iterator[None]:
        """Inside the `with`, lines carry this id, and what the job brought is hidden everywhere."""
        given = job.get("input")
        brought = Brought(job, complete=not (isinstance(given, Mapping) and given.get("replay") is not None))
        with self._lock:
            self._in_hand = (*self._in_hand, brought)
        lines = _JobLines(job_id, brought)
        token = _job.set(lines)
        try:
            yield
        finally:
            if lines.left_out:
                log.warning("%d more lines of this job were left out", lines.left_out, extra={_ALWAYS: {}})
            _job.reset(token)
            with self._lock:
                self._in_hand = tuple(one for one in self._in_hand if one is not brought)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the lines of a traceback; in JSON with the figures that the record brings."""
        lines = [self._format_message(record), *self._format_error(record)]
        text = shorten(self._hide_owners("\n".join(lines)), MAX_LINE)
        job, level = _job.get(), _LEVELS.get(record.levelname, record.levelname)
        job_id = escape(shorten(job.id, MAX_SHOWN_ID)) if job else None
        if self._as_json:
            line = {"requestId": job_id, "message": text, "level": level, **getattr(record, "figures", {})}
            return json.dumps(line)
        return f"{level:<7}| {job_id} | {text}" if job_id else f"{level:<7}| {text}"

    def _format_message(self, record: logging.LogRecord) -> str:
        if record.name != log.name:
            return f"{record.name}: {self._hide_foreign(shorten(record.getMessage()))}"
        given = record.args or ()
        values = (given,) if isinstance(given, Mapping) else given  # which logging takes out of its tuple
        return escape(record.msg % tuple(map(self._show, values)) if values else record.msg)

    def _format_error(self, record: logging.LogRecord) -> Iterator[str]:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            yield indent(format_exception(error, self._hide_foreign), "  ")  # no text of its begins a line

    def _show(self, value: object) -> object:
        """A value of a sentence; what a job brought is hidden in it, where it can be in it."""
        if value is None or isinstance(value, (Number, Own)):
            return value
        text = read_text(value)
        foreign = isinstance(value, BaseException) and not isinstance(value, WorkerError)
        if foreign or len(text) > MAX_OWN_VALUE:
            return self._hide_foreign(text)
        return hide_brought(text, self._in_hand, parts=False)

    def _hide_foreign(self, text: str) -> str:
        """What somebody else wrote, in one line."""
        return escape(hide_addresses(hide_brought(text, self._in_hand, parts=True)))

    def _hide_owners(self, text: str) -> str:
        for secret in self._owners:
            text = text.replace(secret, REDACTED)
        return text


def note_brought(texts: Iterable[str]) -> None:
    """Hide these texts, too, which the job in hand has brought inside of a picture that it replays."""
    if (job := _job.get()) is not None:
        job.brought.add(texts)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; of one job, not more than it may cause."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it."""
        job = _job.get()
        if job is not None and not hasattr(record, _ALWAYS):
            job.count += 1
            if job.left_out:
                return
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a line is missing; logging itself would quote all that was to be in it."""
        with suppress(Exception):
            self.stream.write(f"ERROR  | a line of {record.module}:{record.lineno} could not be written\n")


def _spell(secrets: Iterable[str]) -> tuple[str, ...]:
    """Secrets as messages quote them, the longest first."""
    found: set[str] = set()
    for text in filter(None, secrets):
        found |= {text, repr(text)[1:-1], ascii(text)[1:-1], json.dumps(text)[1:-1], quote(text), quote(text, safe="")}
    return tuple(sorted(found, key=len, reverse=True))


def log_to_stderr(as_json: bool = False) -> RedactingFormatter:
    """Send the worker's own log to standard error.

    Args:
        as_json: for the platform, whose log is read by programs.

    Returns:
        what formats it, to be told what to hide.
    """
    formatter = RedactingFormatter(as_json)
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    return formatter


def log_libraries() -> None:
    """Have what libraries say of failures written as the worker's own lines are, in this process, from now on.

    What is written by others goes to the same place otherwise, and as it is.
    """
    handlers = log.handlers
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger is not log:
            logger.handlers, logger.propagate = [], True
    logging.root.handlers = list(handlers)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread


def _log_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
        log.error("a thread has failed", exc_info=failed.exc_value)
