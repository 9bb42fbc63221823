"""Whether a job is still wanted: asked at every denoising step, between the stages of a job and during transfers."""

import threading

from worker.errors import JobCancelledError


class Cancellation:
    """One job's: set once, from any thread."""

    def __init__(self) -> None:
        """The job is wanted."""
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Nobody wants the job any more."""
        self._cancelled.set()

    def check(self) -> None:
        """Go on, if the job is wanted.

        Raises:
            JobCancelledError: it is not.
        """
        if self._cancelled.is_set():
            raise JobCancelledError("the job was cancelled")
