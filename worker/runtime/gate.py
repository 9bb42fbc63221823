"""Decides whether this process takes another job, and ends it when it is broken.

The request's fault never restarts the worker; the worker's fault ends the process, after the result has left.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from types import FrameType

from runpod.serverless import register_fitness_check
from runpod.serverless.modules.worker_state import JobsProgress

from worker.clock import CLOCK
from worker.errors import WorkerError

log = logging.getLogger("worker")


MAX_FAILURES_IN_A_ROW = 2  # admissible jobs that fail; then another process shall try
EMPTY_TAKE_S = 0.05  # within which a take that was empty did not wait for a job
FREE_EMPTY_TAKES = 3  # empty takes in a row that nothing is made of
MAX_PAUSE_S = 2.0
LEAVE_CHECK_S = 0.05  # between looks at whether the last result is sent


class Gate:
    """Decides, before each job is taken, whether this process may take it.

    The SDK asks its `concurrency_modifier` before every take: a broken process ends there, once no job is in progress,
    with the results delivered and no job lost.
    """

    def __init__(self) -> None:
        self._broken = False
        self._in_a_row = 0
        self._asked_at = 0.0
        self._at_once = 0
        self._installed = False

    def mark_broken(self) -> None:
        """Let this process take no further job."""
        self._broken = True

    def job_succeeded(self) -> None:
        """A job has succeeded: what went wrong before was not this process."""
        self._in_a_row = 0

    def job_failed(self) -> bool:
        """A job has failed that should not have; whether it is the second in a row, and the process to blame."""
        self._in_a_row += 1
        return self._in_a_row >= MAX_FAILURES_IN_A_ROW

    def concurrency_modifier(self, concurrency: int) -> int:
        """Leave `concurrency` as it is, or end the process.

        Raises:
            SystemExit: the process is broken and its last result has been sent.
        """
        if not self._installed:
            self._installed = True
            _leave_as_soon_as_idle()
            _watch_for_freezes()
        if JobsProgress().get_job_count() == 0:
            if self._broken:
                log.error("leaving: this process is broken")
                raise SystemExit(1)
            self._throttle_empty_takes()
        return concurrency

    def job_taken(self) -> None:
        """A job has come: the platform is there."""
        self._at_once = 0

    def _throttle_empty_takes(self) -> None:
        """Wait a little when takes come back at once and empty, again and again.

        A platform that is gone or answers 500 makes the SDK ask without a pause, at the cost of a whole core.
        """
        now = time.monotonic()
        self._at_once = self._at_once + 1 if now - self._asked_at < EMPTY_TAKE_S else 0
        if self._at_once > FREE_EMPTY_TAKES:
            doublings = min(
                self._at_once - FREE_EMPTY_TAKES, 10
            )  # after half an hour, 2 to their number is no float any more
            time.sleep(min(MAX_PAUSE_S, EMPTY_TAKE_S * 2**doublings))
        self._asked_at = time.monotonic()


def _leave_as_soon_as_idle() -> None:
    """On SIGTERM, end the worker as soon as no job is in progress.

    An idle worker ends before it can take a job that it will not do: the SDK only notes the signal and still takes
    one more, which is then lost. A busy one ends when its results are sent: the SDK would wait for its open polls as
    well, up to 90 s. Installed once the SDK's own handler and heartbeat exist: a handler from before `start()` is
    inherited by the heartbeat and hangs the exit.
    """
    graceful = signal.getsignal(signal.SIGTERM)
    leaving: list[asyncio.Task[None]] = []  # held, or it could be collected

    def handle(signum: int, frame: FrameType | None) -> None:
        if callable(graceful):
            graceful(signum, frame)
        if JobsProgress().get_job_count() == 0:
            raise SystemExit(0)
        loop = asyncio.get_running_loop()  # the SDK's, which runs in the thread that signals interrupt
        loop.call_soon_threadsafe(lambda: leaving.append(loop.create_task(_leave_when_idle())))

    signal.signal(signal.SIGTERM, handle)


def _watch_for_freezes() -> None:
    """Have the SDK's loop, after a freeze, read what has come before it gives up waiting.

    The SDK gives a poll up after 90 s. One that was open when the process was frozen is overdue afterwards, and a job
    that came meanwhile would be thrown away.
    """
    with contextlib.suppress(RuntimeError):  # no loop, no polls
        CLOCK.watch(asyncio.get_running_loop())


async def _leave_when_idle() -> None:
    """End the process once the last result is sent.

    Raises:
        SystemExit: it is.
    """
    while JobsProgress().get_job_count():
        await asyncio.sleep(LEAVE_CHECK_S)
    raise SystemExit(0)


def report_load_failure(failure: WorkerError | None, on_platform: bool) -> None:
    """Report why there is no model where it is heard: to the platform through a fitness check, or on the terminal.

    Raises:
        SystemExit: there is no model, and this is a local run.
    """

    def model_is_loaded() -> None:
        if failure is not None:
            raise failure

    if failure is not None and not on_platform:
        print(f"{failure.code}: {failure}", file=sys.stderr)
        raise SystemExit(1)
    register_fitness_check(model_is_loaded)
