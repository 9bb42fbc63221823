"""One job in hand: what belongs to it alone while others are in hand too."""

from collections.abc import Mapping
from typing import Any

from worker.clock import CLOCK
from worker.engine.steps import MakePreview
from worker.runtime.cancellation import Cancellation
from worker.runtime.progress import Progress
from worker.runtime.record import JobRecord


class Job:
    """One job, from when the platform hands it over.

    Attributes:
        raw: as it came.
        id: the platform's.
        to_files: True for the local test, whose pictures become files.
        progress, cancellation, record: its own.
        deadline: in the clock's running time; None without JOB_TIMEOUT_S.
    """

    def __init__(self, raw: Mapping[str, Any], silent: bool, timeout_s: float | None, to_files: bool) -> None:
        """It has come now.

        Args:
            silent: whether nobody hears of its progress.
            timeout_s: for all of it.
        """
        self.raw = raw
        self.id = str(raw.get("id"))
        self.to_files = to_files
        self.progress = Progress(raw, silent)
        self.cancellation = Cancellation()
        self.record = JobRecord()
        self.deadline = CLOCK.running_time() + timeout_s if timeout_s else None

    def on_step(self, done: int, total: int, make_preview: MakePreview | None) -> None:
        """Tell how many of how many steps are done.

        Raises:
            JobCancelledError: nobody wants it any more.
        """
        self.cancellation.check()
        self.progress.step(done, total, make_preview)
