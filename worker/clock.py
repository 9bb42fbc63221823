"""Time without that in which this process was frozen, as FlashBoot and `docker pause` do it.

The monotonic clock goes on while a process is frozen, and nothing tells the process. So a thread looks at the clock
again and again, and a gap between two looks, far longer than the thread sleeps, is time in which nothing here ran.
"""

import threading
import time

LOOK_S = 0.25
MIN_FREEZE_S = 2.0  # a shorter gap may be a machine that is busy, and counts as any other time


class Clock:
    """One process's; until it watches, a clock that knows of no freeze."""

    def __init__(self) -> None:
        """Not frozen yet."""
        self._lock = threading.Lock()
        self._watching = False
        self._looked = time.monotonic()
        self._frozen_s = 0.0

    def watch(self) -> None:
        """Look out for freezes from now on."""
        self._looked, self._watching = time.monotonic(), True
        threading.Thread(target=self._keep_looking, name="clock", daemon=True).start()

    def running_time(self) -> float:
        """Seconds that this process has run, counted from some moment; `time.monotonic()` without the freezes."""
        with self._lock:
            now = time.monotonic()
            gap, self._looked = now - self._looked, now
            if self._watching and gap > MIN_FREEZE_S:
                self._frozen_s += gap
            return now - self._frozen_s

    def frozen_time(self) -> float:
        """Seconds in which this process was frozen, so far."""
        self.running_time()
        return self._frozen_s

    def _keep_looking(self) -> None:
        while True:
            time.sleep(LOOK_S)
            self.running_time()


CLOCK = Clock()
