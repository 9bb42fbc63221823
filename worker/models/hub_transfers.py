"""Bounds for what huggingface_hub waits for without any: a host that drips, or names a pause, and another's lock.

It knows a limit for each read, and none for all of them; none for the pause that a host asks for; and it waits for a
lock for as long as somebody holds it, a process that is frozen as well. Transfers by hf_xet have limits of their own.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from httpcore2 import NetworkBackend, NetworkStream, ReadTimeout
from huggingface_hub import constants, file_download, set_client_factory
from huggingface_hub.utils import _shared_blobs
from huggingface_hub.utils._http import default_client_factory

from worker.clock import CLOCK
from worker.models.pace import Pace, TooSlowError

log = logging.getLogger("worker")

READ_S = 30.0  # for each read of which huggingface_hub says nothing
MAX_PAUSE_S = 300  # of those that a host asks for; the hub counts requests in windows of five minutes
IDLE_S = 60.0  # after which a lock is passed over, if nothing has come meanwhile of the file that it is for
POLL_S = 0.5  # between two looks at a lock
_CHUNK_BYTES = 1_000_000  # that are written at once; of the usual ten times as many, nothing would be seen for long
_PAUSES = ("retry-after", "ratelimit")  # headers that huggingface_hub obeys


@cache
def bound_transfers() -> None:
    """Have huggingface_hub, in this process, wait for nothing without end."""
    set_client_factory(_make_client)
    file_download.WeakFileLock = _wait_for_lock  # type: ignore[attr-defined, assignment]
    _shared_blobs.FileLock = _open_short_lock  # type: ignore[attr-defined, assignment]
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES


def _make_client() -> httpx2.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], _shorten_pauses]}
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.HTTPTransport):
            pool: Any = transport._pool
            pool._network_backend = _PacedBackend(pool._network_backend)
    return client


def _shorten_pauses(response: httpx2.Response) -> None:
    """Have a host ask for no longer a pause than it may."""
    for name in _PAUSES:
        if name in response.headers:
            shorter = re.sub(r"\d{3,}", lambda found: str(min(int(found[0]), MAX_PAUSE_S)), response.headers[name])
            response.headers[name] = shorter


class _PacedBackend(NetworkBackend):
    """Connections that are given up when they bring too little."""

    def __init__(self, plain: NetworkBackend) -> None:
        self._plain = plain

    def connect_tcp(self, *args: Any, **options: Any) -> NetworkStream:
        return _PacedStream(self._plain.connect_tcp(*args, **options))

    def connect_unix_socket(self, *args: Any, **options: Any) -> NetworkStream:
        return _PacedStream(self._plain.connect_unix_socket(*args, **options))

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _PacedStream(NetworkStream):
    """One connection; what is said on it begins a new wait."""

    def __init__(self, plain: NetworkStream) -> None:
        self._plain = plain
        self._pace = Pace()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._plain.read(max_bytes, READ_S if timeout is None else timeout)
        try:
            self._pace.note(len(data))
        except TooSlowError as error:
            raise ReadTimeout(str(error)) from error
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._pace = Pace()
        self._plain.write(buffer, READ_S if timeout is None else timeout)

    def close(self) -> None:
        self._plain.close()

    def start_tls(self, *args: Any, **options: Any) -> NetworkStream:
        return _PacedStream(self._plain.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)


@contextmanager
def _wait_for_lock(lock_file: str | Path, *, timeout: float | None = None) -> Iterator[BaseFileLock | None]:
    """The lock, in huggingface_hub's place; None when its holder is idle.

    Without it nothing is harmed but time: each process fetches a file under a name of its own, and renames it.

    Args:
        timeout: as huggingface_hub passes it, which is never where files are fetched.
    """
    lock: BaseFileLock = FileLock(lock_file, mode=0o664)
    progress, since = _look(Path(lock_file)), CLOCK.running_time()
    while not (taken := _take(lock)):
        if taken is None:
            lock = SoftFileLock(lock_file)
            continue
        if (now := _look(Path(lock_file))) != progress:
            progress, since = now, CLOCK.running_time()
        if CLOCK.running_time() - since > IDLE_S:
            log.warning("another worker holds the lock of a file, and brings nothing of it; it is fetched once more")
            yield None
            return
        time.sleep(POLL_S)
    try:
        yield lock
    finally:
        lock.release()


def _open_short_lock(lock_file: str | Path, mode: int) -> BaseFileLock:
    """A lock of what caches share, which is held for moments; without it huggingface_hub goes on and shares nothing."""
    return FileLock(lock_file, timeout=IDLE_S, mode=mode)


def _take(lock: BaseFileLock) -> bool | None:
    """Whether the lock is ours now; None where the file system knows none of its kind."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except NotImplementedError:
        return None
    return True


def _look(lock_file: Path) -> tuple[tuple[str, int, int], ...]:
    """What there is of the file that a lock is for, so that two looks differ when more has come.

    Args:
        lock_file: CACHE/.locks/REPOSITORY/ETAG.lock; the file is fetched to CACHE/REPOSITORY/blobs/ETAG.*.incomplete
    """
    blobs = lock_file.parents[2] / lock_file.parent.name / "blobs"
    try:
        found = [(path, path.stat()) for path in blobs.glob(f"{lock_file.stem}*")]
    except OSError:  # one was renamed meanwhile
        return ()
    return tuple(sorted((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in found))
