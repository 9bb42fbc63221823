"""What happened, in order: the endpoint's memory, and what tests assert on.

The server's thread writes, any thread reads or waits. An event carries small facts only; a result is noted by its
size, never by its pictures. The oldest events are dropped after a hundred thousand, or when what was shown on the way
(progress, chunks of a stream, errors) takes 200 MB.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    # a job's life
    "queued",  # by a caller, first time or retry
    "taken",  # handed to a worker
    "requeued",  # back in the queue; data: reason
    "progress",  # data: output
    "stream",  # one chunk; data: output
    "result",  # accepted; data: bytes, stopPod, and error if there is one
    "refused",  # a post answered 400; data: reason, bytes
    "late_progress",  # after the job had ended, or from a worker that no longer holds it; data: output
    "late_result",  # likewise; data as for result
    "completed",
    "failed",  # data: error
    "cancelled",
    "timed_out",  # data: error
    "stop_sent",  # its worker was told to stop it
    "webhook",  # the caller's webhook was called; data: status
    # a worker's life
    "poll",  # a job-take request came in; data: job_in_progress, batch_size
    "ping",  # data: jobs, runpod_version
    "unhealthy",  # a fitness check failed; data: check, reason
    "worker_gone",  # data: reason
    # the emulation's own
    "fault",  # a fault was played; data: on
]

MAX_EVENTS = 100_000
MAX_EVENT_BYTES = 200_000_000
FINAL_KINDS: tuple[Kind, ...] = ("completed", "failed", "cancelled", "timed_out")


@dataclass(frozen=True)
class Event:
    """One thing that happened; `at` is in seconds of the monotonic clock."""

    kind: Kind
    job_id: str | None
    worker_id: str | None
    size: int = 0  # of what is large in the data, in bytes
    data: dict[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)


class EventLog:
    """An ordered, append-only record that can be waited on from threads and from the server's loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._appended = threading.Condition()
        self.listeners: set[asyncio.Event] = set()  # long polls of the server's loop

    def record(
        self, kind: Kind, job_id: str | None = None, worker_id: str | None = None, size: int = 0, **data: Any
    ) -> None:
        """Appends one event and wakes everybody who waits. Called on the server's loop only."""
        with self._appended:
            self._events.append(Event(kind, job_id, worker_id, size, data))
            self._bytes += size
            while len(self._events) > MAX_EVENTS or self._bytes > MAX_EVENT_BYTES:
                self._bytes -= self._events.popleft().size
            self._appended.notify_all()
        for listener in self.listeners:
            listener.set()

    def of(self, *kinds: Kind, job_id: str | None = None, worker_id: str | None = None) -> list[Event]:
        """The events so far, oldest first, that match everything given."""
        with self._appended:
            return [
                event
                for event in self._events
                if (not kinds or event.kind in kinds)
                and (job_id is None or event.job_id == job_id)
                and (worker_id is None or event.worker_id == worker_id)
            ]

    def story(self, job_id: str) -> list[Kind]:
        """What happened to one job, as the names of its events."""
        return [event.kind for event in self.of(job_id=job_id)]

    def wait(
        self,
        *kinds: Kind,
        job_id: str | None = None,
        worker_id: str | None = None,
        count: int = 1,
        timeout: float = 60.0,
        unless: Callable[[], bool] = lambda: False,
    ) -> Event:
        """Blocks until `count` matching events exist and returns the last of them.

        Raises TimeoutError, naming what did happen, after `timeout` seconds or as soon as `unless` is true.
        """
        deadline = time.monotonic() + timeout
        with self._appended:  # its lock may be taken again by the same thread, as `of` does
            while len(found := self.of(*kinds, job_id=job_id, worker_id=worker_id)) < count:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or unless():
                    seen = [event.kind for event in self.of(job_id=job_id, worker_id=worker_id)][-40:]
                    raise TimeoutError(f"waited for {count} x {'/'.join(kinds)}, saw {seen}")
                self._appended.wait(min(remaining, 0.5))
        return found[count - 1]
