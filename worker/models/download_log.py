"""Files from the hub, told in the log while they come: a line every ten seconds, and one at the end.

huggingface_hub draws progress bars, which are for terminals. It takes a class for them, so here is one that draws
nothing and is counted. What is in the cache already draws no bar, and nothing is told of it.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils.tqdm import tqdm as HubBar

from worker.files import check_readable, is_folder, walk_folder
from worker.models.hub_transfers import bound_transfers

log = logging.getLogger("worker")

INTERVAL_S = 10.0  # between two lines

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_MANY_SECONDS = 120  # from here on, minutes are told


class Download:
    """What has come so far of one or several files, counted from any thread."""

    def __init__(self, what: str) -> None:
        """Nothing has come.

        Args:
            what: as the log names it.
        """
        self._what = what
        self._bars: list[CountingBar] = []
        self._started = self._told_at = self._came_at = time.monotonic()
        self._done = self._told = 0
        self._lock = threading.Lock()

    def watch(self, bar: "CountingBar") -> None:
        """Know the size that this bar expects."""
        with self._lock:
            self._bars.append(bar)

    def add(self, count: int) -> None:
        """Count bytes that have come; a negative number of them will come again."""
        with self._lock:
            self._done += count
            self._came_at = time.monotonic()

    def tell(self) -> None:
        """Log how far it is."""
        with self._lock:
            now, done, total = time.monotonic(), self._done, sum(bar.total or 0 for bar in self._bars)
            speed = (done - self._told) / (now - self._told_at)
            self._told, self._told_at = done, now
        if not done:
            reason = "the hub is slow, or another worker is fetching it to the same place"
            log.info("downloading %s: nothing has come in %s; %s", self._what, _time(now - self._started), reason)
        elif speed <= 0:
            log.info("downloading %s: %s, nothing more has come", self._what, _progress(done, total))
        else:
            left = f", {_time((total - done) / speed)} left" if total > done else ""
            log.info("downloading %s: %s, %s/s%s", self._what, _progress(done, total), _size(speed), left)

    def tell_end(self) -> None:
        """Log what has come in all, if anything has."""
        seconds = max(self._came_at - self._started, 1e-3)
        if self._done:
            mean = _size(self._done / seconds)
            log.info("downloaded %s: %s in %s, %s/s", self._what, _size(self._done), _time(seconds), mean)


_current: ContextVar[Download | None] = ContextVar("download", default=None)  # bars are made in the thread that asks


class CountingBar(HubBar):
    """A progress bar that draws nothing; bytes of files are counted for the download under way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As huggingface_hub makes one."""
        super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
        # Of two bars for the same files, this one counts what crosses the network, perhaps packed.
        packed = str(options.get("name")).endswith(".transfer")
        self._download = _current.get() if options.get("unit") == "B" and not packed else None
        if self._download:
            self._download.watch(self)

    def update(self, n: float | None = 1) -> None:
        """Count this many more."""
        if self._download and n:
            self._download.add(int(n))


@contextmanager
def log_download(what: str) -> Iterator[None]:
    """Tell of what this thread fetches inside the `with`, unless it fails; what is inside another one belongs to that.

    Args:
        what: as the log names it.
    """
    if _current.get():
        yield
        return
    download, over = Download(what), threading.Event()
    teller = threading.Thread(target=_tell_until, args=(download, over), name="download log", daemon=True)
    before = _current.set(download)
    teller.start()
    try:
        yield
    finally:
        _current.reset(before)
        over.set()
        teller.join()
    download.tell_end()


def _tell_until(download: Download, over: threading.Event) -> None:
    while not over.wait(INTERVAL_S):
        download.tell()


def fetch_file(repository: str, filename: str, **options: Any) -> str:
    """`hf_hub_download`, told in the log."""
    bound_transfers()
    with log_download("/".join(filter(None, (repository, options.get("subfolder"), filename)))):
        file = str(hf_hub_download(repository, filename, **options, tqdm_class=CountingBar))
    check_readable(Path(file))  # what was in the cache may be anything
    return file


def fetch_snapshot(repository: str, **options: Any) -> str:
    """`snapshot_download`, told in the log."""
    bound_transfers()
    with log_download(repository):
        folder = str(snapshot_download(repository, **options, tqdm_class=CountingBar))
    for path in walk_folder(Path(folder))[0]:
        if not is_folder(path):
            check_readable(path)
    return folder


def _progress(done: int, total: int) -> str:
    """Both in the larger one's unit; the first alone if the second is not known."""
    if total < done:
        return _size(done)
    factor, unit = _find_unit(total)
    return f"{done / factor:.1f} of {total / factor:.1f} {unit}"


def _size(count: float) -> str:
    factor, unit = _find_unit(count)
    return f"{count / factor:.{0 if count / factor >= 10 or factor == 1 else 1}f} {unit}"


def _find_unit(count: float) -> tuple[float, str]:
    return next(((factor, unit) for factor, unit in _UNITS if count >= factor), (1, "bytes"))


def _time(seconds: float) -> str:
    if seconds >= _MANY_SECONDS:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
