"""Files that jobs wait for: each is fetched once for all who want it, and goes on coming when a job's time is over.

A fetch that nobody waits for any more is not thrown away: the next job that names the file finds it further.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from worker.waiting import CHECK_S, start_thread, wait_for

MAX_FETCHES = 8  # at once, those that jobs have left behind among them; who wants another one waits for its turn


class SharedFetches:
    """The fetches under way, by place."""

    def __init__(self, fetch: Callable[[str], Path]) -> None:
        """None is under way.

        Args:
            fetch: a place -> the file, checked; may take any time.
        """
        self._fetch = fetch
        self._running: dict[str, Future[Path]] = {}
        self._lock = threading.Lock()

    def get(self, place: str, check: Callable[[], None]) -> Path:
        """The file that is at this place.

        Args:
            check: called every 0.2 s meanwhile; what it raises ends the wait, not the fetch.

        Raises:
            ModelError: it cannot be had, or is not what it should be.
        """
        while (running := self._join(place)) is None:
            check()
            time.sleep(CHECK_S)
        return wait_for(running, check)

    def _join(self, place: str) -> Future[Path] | None:
        """The fetch of this place, begun if there is none; None while too many others are under way."""
        with self._lock:
            self._running = {name: one for name, one in self._running.items() if not one.done()}
            if place not in self._running and len(self._running) < MAX_FETCHES:
                self._running[place] = start_thread(partial(self._fetch, place), "fetch")
            return self._running.get(place)
