"""Time without that in which this process was frozen, as FlashBoot and `docker pause` do it.

The monotonic clock goes on while a process is frozen, and nothing tells the process. So a thread looks at the clock
again and again, and a gap between two looks, far longer than the thread sleeps, is time in which nothing here ran.
"""

import asyncio
import contextlib
import threading
import time

LOOK_S = 0.25
MIN_FREEZE_S = 2.0  # a shorter gap may be a machine that is busy, and counts as any other time
PATIENCE_S = 0.5  # after a freeze: to read what lies in this machine's buffers takes milliseconds


class Clock:
    """One process's; until it watches, a clock that knows of no freeze."""

    def __init__(self) -> None:
        """Not frozen yet."""
        self._lock = threading.Lock()
        self._watching = False
        self._looked = self._thawed = time.monotonic()
        self._last_freeze_s = self._frozen_s = 0.0

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look out for freezes until this loop is closed, and have its timers keep `patient_time`. Called once."""
        loop.time = self.patient_time  # type: ignore[method-assign]
        self._looked, self._watching = time.monotonic(), True
        threading.Thread(target=self._keep_looking, args=(loop,), name="clock", daemon=True).start()

    def running_time(self) -> float:
        """Seconds that this process has run, counted from some moment; `time.monotonic()` without the freezes."""
        with self._lock:
            return self._look() - self._frozen_s

    def patient_time(self) -> float:
        """`time.monotonic()`, except that for a moment after a freeze it is as if there had been none.

        The time limit of a request that was open during the freeze has run out meanwhile. It would throw away even an
        answer that has long arrived and only waits to be read: so reading has its chance first. An answer that has not
        arrived is given up soon after, for its connection may be dead.
        """
        with self._lock:
            now = self._look()
            return now - self._last_freeze_s if now - self._thawed < PATIENCE_S else now

    def _keep_looking(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            while True:
                time.sleep(LOOK_S)
                self.running_time()
                loop.call_soon_threadsafe(lambda: None)  # it may sleep by the patient time, which jumps
        self._watching = False

    def _look(self) -> float:
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        if self._watching and gap > MIN_FREEZE_S:
            self._thawed, self._last_freeze_s = now, gap
            self._frozen_s += gap
        return now


CLOCK = Clock()
