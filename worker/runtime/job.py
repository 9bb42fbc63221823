"""One job in hand: what belongs to it alone while others are in hand too."""

import threading
from collections.abc import Mapping
from typing import Any

from worker.api.contract import choose_contract
from worker.clock import CLOCK
from worker.engine.steps import MakePreview
from worker.errors import JobTimeoutError
from worker.runtime.cancellation import Cancellation
from worker.runtime.progress import Progress
from worker.runtime.record import JobRecord
from worker.waiting import CHECK_S

LEAVE_S = 2.0  # after its time is over, for a job to end by itself before it is left behind


class Job:
    """One job, from when the platform hands it over.

    Attributes:
        raw: as it came.
        id: the platform's.
        contract: how it is asked and answered.
        to_files: True for the local test, whose pictures become files.
        progress, cancellation, record: its own.
        deadline: in the clock's running time; None without JOB_TIMEOUT_S.
        stage: what is done for it now.
    """

    def __init__(self, raw: Mapping[str, Any], silent: bool, timeout_s: float | None, to_files: bool) -> None:
        """It has come now.

        Args:
            silent: whether nobody hears of its progress.
            timeout_s: for all of it.
        """
        self.raw = raw
        self.id = str(raw.get("id"))
        self.contract = choose_contract(raw)
        self.to_files = to_files
        self.progress = Progress(raw, silent)
        self.cancellation = Cancellation()
        self.record = JobRecord()
        self.deadline = CLOCK.running_time() + timeout_s if timeout_s else None
        self.stage = "reading the request"
        self._settled = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Go on, if the job is wanted and has time left; asked wherever it waits.

        Raises:
            JobCancelledError: nobody wants it any more.
            JobTimeoutError: its time is over.
        """
        self.cancellation.check()
        if self.deadline is not None and CLOCK.running_time() > self.deadline:
            raise self.timeout()

    def begin(self, stage: str) -> None:
        """Note what it is in now, for what its caller is told if its time is over there.

        Raises:
            WorkerError: as `check`.
        """
        self.check()
        self.stage = stage

    def timeout(self) -> JobTimeoutError:
        """What its caller is told when its time is over."""
        return JobTimeoutError(f"stopped while {self.stage}: the job's time is over (JOB_TIMEOUT_S)")

    def is_overdue(self) -> bool:
        """Whether it should have ended by itself since its time was over."""
        return self.deadline is not None and CLOCK.running_time() >= self.deadline + LEAVE_S

    def seconds_to_leave(self) -> float | None:
        """How long to wait before it may be overdue; None if it never is."""
        return None if self.deadline is None else max(self.deadline + LEAVE_S - CLOCK.running_time(), CHECK_S)

    def settle(self) -> bool:
        """Whether whoever calls this answers the job; nobody else does."""
        with self._lock:
            settled, self._settled = self._settled, True
        return not settled

    def on_step(self, done: int, total: int, make_preview: MakePreview | None) -> None:
        """Tell how many of how many steps are done.

        Raises:
            JobCancelledError: nobody wants it any more.
            JobTimeoutError: its time is over.
        """
        self.begin("drawing")
        self.progress.step(done, total, make_preview)
