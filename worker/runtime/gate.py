"""Decides whether this process takes another job, and ends it when it is broken or told to stop.

The request's fault never restarts the worker; the worker's fault ends the process, after its results have left.
"""

import asyncio
import logging
import signal
import sys
from contextlib import suppress

from runpod.serverless import register_fitness_check
from runpod.serverless.modules.worker_state import JobsProgress

from worker.clock import CLOCK
from worker.errors import WorkerError
from worker.runtime.intake import Intake
from worker.text import escape

log = logging.getLogger("worker")


MAX_FAILURES_IN_A_ROW = 2  # admissible jobs that fail, where nothing proves that this process still draws
LEAVE_CHECK_S = 0.05  # between looks at whether the last result is sent


class Gate:
    """Lets jobs in until this process is broken or told to stop; then ends it, once the last result is sent."""

    def __init__(self, jobs_at_once: int = 1) -> None:
        """It is open.

        Args:
            jobs_at_once: that the SDK may take.
        """
        self._jobs_at_once = jobs_at_once
        self._broken = False
        self._in_a_row = 0
        self._intake: Intake | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None  # held, or it could be collected

    @property
    def broken(self) -> bool:
        """Whether this process takes no further job because it cannot compute any more."""
        return self._broken

    def mark_broken(self) -> None:
        """Let this process take no further job, and end it with code 1 when those in hand are answered."""
        self._broken = True
        self._close()

    def job_succeeded(self) -> None:
        """A job has succeeded, or a proof: what went wrong before was not this process."""
        self._in_a_row = 0

    def job_failed(self) -> bool:
        """A job has failed that should not have, and nothing is proved; whether that happened twice in a row."""
        self._in_a_row += 1
        return self._in_a_row >= MAX_FAILURES_IN_A_ROW

    def concurrency_modifier(self, _: int) -> int:
        """How many jobs the SDK may take; it asks before it fetches any."""
        if self._intake is None:
            self._take_over()
        return self._jobs_at_once

    def _take_over(self) -> None:
        """Put this gate between the SDK and the platform, now that the SDK runs.

        Its handler of SIGTERM is a method of what takes the jobs. A handler from before `start()` would be inherited
        by the heartbeat and hang the exit. The SDK's own only notes the signal: it takes one more job, which is then
        lost, and waits for all of its open requests, up to 90 s.
        """
        CLOCK.watch()
        scaler = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(scaler.jobs_fetcher, scaler.stop_signals_fetcher, scaler.jobs_tasks)
        scaler.jobs_fetcher, scaler.stop_signals_fetcher = self._intake.fetch, self._intake.fetch_stops
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._close())

    def _close(self) -> None:
        """From any thread, and from inside a signal's handler."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop, and with it the process, has ended meanwhile
                self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        assert self._intake is not None
        self._intake.close()
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave_when_idle())

    async def _leave_when_idle(self) -> None:
        """End the process once the last result is sent.

        Raises:
            SystemExit: it is.
        """
        await asyncio.sleep(LEAVE_CHECK_S)  # what had been handed out by then is in progress now
        while JobsProgress().get_job_count():
            await asyncio.sleep(LEAVE_CHECK_S)
        if self._broken:
            log.error("leaving: this process is broken")
        raise SystemExit(int(self._broken))


def report_load_failure(failure: WorkerError | None, on_platform: bool) -> None:
    """Report why there is no model where it is heard: to the platform through a fitness check, or on the terminal.

    Raises:
        SystemExit: there is no model, and this is a local run.
    """

    def model_is_loaded() -> None:
        if failure is not None:
            raise failure

    if failure is not None and not on_platform:
        print(escape(f"{failure.code}: {failure}"), file=sys.stderr)
        raise SystemExit(1)
    register_fitness_check(model_is_loaded)
