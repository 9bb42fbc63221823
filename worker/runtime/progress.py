"""Progress through the SDK: in order, at most every half second, and never after the result.

The SDK sends each update from a thread of its own, so two in flight can overtake each other and one can arrive after
the result, which ends the job. Only one is ever in flight here, and it is awaited before the result leaves.
"""

import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pybase64
import runpod
from PIL.Image import Image

from worker.clock import CLOCK

INTERVAL_S = 0.5
LAST_UPDATE_TIMEOUT_S = 10.0
_SDK_THREAD = "_thread_target"  # what the SDK's threads run, of which Python makes part of their names


class Progress:
    """Reports one job's denoising steps to whoever polls its status."""

    def __init__(self, job: Mapping[str, Any], silent: bool) -> None:
        """A reporter for this job; a silent one, for local runs, reports to nobody."""
        self._job = dict(job)
        self._silent = silent
        self._started = CLOCK.running_time()
        self._sent = float("-inf")
        self._sending: list[threading.Thread] = []
        self._closed = False
        self._lock = threading.Lock()  # between the thread that draws and whoever closes

    def step(self, done: int, total: int, make_preview: Callable[[], Image | None] | None = None) -> None:
        """Tell how many of how many steps are done, unless the last word is too recent or still on its way.

        Args:
            make_preview: makes a small picture of what there is so far, if the job wants to see it.
        """
        now = CLOCK.running_time()
        with self._lock:
            if not self._closed:
                self._report(now, done, total, make_preview)

    def finish(self) -> None:
        """Report nothing more, and wait until nothing is in flight; to be called before the job ends."""
        with self._lock:
            self._closed = True
        for thread in self._sending:
            thread.join(LAST_UPDATE_TIMEOUT_S)

    def _report(self, now: float, done: int, total: int, make_preview: Callable[[], Image | None] | None) -> None:
        if self._silent or now - self._sent < INTERVAL_S or any(thread.is_alive() for thread in self._sending):
            return
        self._sent = now
        update: dict[str, Any] = {
            "step": done,
            "total": total,
            "percent": round(100 * done / total, 1),
            "seconds_left": round((now - self._started) / done * (total - done), 1),
        }
        if make_preview is not None and (picture := make_preview()) is not None:
            update["preview"] = _data_uri(picture)
        self._send(update)

    def _send(self, update: Mapping[str, Any]) -> None:
        before = set(threading.enumerate())
        runpod.serverless.progress_update(self._job, update)
        started = [thread for thread in threading.enumerate() if thread not in before]
        self._sending = [thread for thread in started if _SDK_THREAD in thread.name]  # others start threads meanwhile


def _data_uri(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{pybase64.b64encode_as_string(buffer.getvalue())}"
