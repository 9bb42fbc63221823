"""How slowly a file may come: what brings less for a while than any line would is given up, so that waits end."""

from worker.clock import CLOCK

WINDOW_S = 60.0
MIN_BYTES = 600_000  # in each of them: 10 kB/s


class TooSlowError(ConnectionError):
    """Less has come than any line would bring."""


class Pace:
    """What has come of one transfer, and in how much time of waiting for it."""

    def __init__(self) -> None:
        """Nothing has come, and nobody has waited."""
        self._since = CLOCK.running_time()
        self._bytes = 0

    def note(self, count: int) -> None:
        """So many bytes more have come.

        Raises:
            TooSlowError: they are too few for the time.
        """
        self._bytes += count
        now = CLOCK.running_time()
        if now - self._since < WINDOW_S:
            return
        if self._bytes < MIN_BYTES:
            raise TooSlowError(f"no more than {self._bytes} bytes came in {now - self._since:.0f} s")
        self._since, self._bytes = now, 0
