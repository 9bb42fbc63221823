"""A large file over HTTP -> the disk: resumed where it broke off, and there under its name only once it is whole.

Workers that want the same file in the same folder do not harm each other: one fetches it, the others wait for it, as
long as it brings something.
What breaks off leaves a hidden file, `.NAME.partial`, and whoever comes next goes on from its end.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from worker.clock import CLOCK
from worker.errors import ModelError
from worker.http import Receive
from worker.models.checks import check_file
from worker.models.download_log import CountingBar, log_download
from worker.models.pace import Pace, TooSlowError

log = logging.getLogger("worker")

MAX_FAILURES = 5  # of transfers, one after the other, that bring hardly anything
MIN_PROGRESS_BYTES = 65_536
MAX_TRIES = 2  # at a file that comes whole and is not what it should be
POLL_S = 0.5  # between two looks at what another worker is fetching
IDLE_S = 60.0  # after which it is not waited for any longer, if nothing more has come meanwhile
PAUSE_S = 1.0  # after the first failure; twice as long after each further one

Send = Callable[[int, Receive], None]  # asks for the file from this byte on; raises OSError if the transfer fails


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere.

    Attributes:
        title: as the log and messages name it.
        size: in bytes, perhaps not to the byte; None if nobody says.
        sha256: of its bytes, in small hexadecimal digits; None if nobody says.
    """

    title: str
    size: int | None
    sha256: str | None


def fetch_to(path: Path, remote: RemoteFile, send: Send) -> None:
    """Have the file at this path, fetched if it is not there.

    Raises:
        ModelError: it cannot be fetched, does not fit on the disk, or is not what it should be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with log_download(remote.title), _claim(path) as partial:
            if partial is not None:
                _fetch_whole(partial, remote, send)
                os.replace(partial.name, path)
    except OSError as error:
        raise ModelError(f"{remote.title} cannot be written to {path.parent}: {error.strerror or error}") from error


@contextmanager
def _claim(path: Path) -> Iterator[FileIO | None]:
    """What has come of the file so far, for this worker alone; None once another one has fetched it."""
    place = path.with_name(f".{path.name}.partial")
    size, since = -1, CLOCK.running_time()
    while not path.exists():
        with FileIO(place, "a+") as partial:
            locked = _lock(partial)
            if locked and _is_at(partial, place):
                yield partial
                return
            if _size(partial) != size:
                size, since = _size(partial), CLOCK.running_time()
        if locked is None:
            break
        if not locked and CLOCK.running_time() - since > IDLE_S:
            log.warning("another worker fetches %s, and nothing of it comes; it is fetched once more", path.name)
            break
        time.sleep(0 if locked else POLL_S)
    else:
        yield None
        return
    with _claim_own(path) as partial:
        yield partial


@contextmanager
def _claim_own(path: Path) -> Iterator[FileIO]:
    """A file of a name of its own, where the file system knows no locks, or the one who holds it is frozen; nobody can
    go on with it."""
    place = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with FileIO(place, "a+") as partial:
            yield partial
    finally:
        place.unlink(missing_ok=True)


def _lock(file: FileIO) -> bool | None:
    """Whether the file is locked for this process, as long as it is open; None where locks are unknown."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: FileIO, place: Path) -> bool:
    """Whether the open file still has this name; another worker may have finished and renamed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _fetch_whole(partial: FileIO, remote: RemoteFile, send: Send) -> None:
    for attempt in range(MAX_TRIES):
        _fetch_all(partial, remote, send)
        if problem := _find_problem(Path(partial.name), remote):
            partial.truncate(0)
            if attempt + 1 == MAX_TRIES:
                raise ModelError(problem)
            log.warning("%s; fetching it once more", problem)
        else:
            os.fsync(partial.fileno())
            return


def _find_problem(path: Path, remote: RemoteFile) -> str | None:
    """What is wrong with a file that has come whole."""
    if remote.sha256:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != remote.sha256:
            return f"{remote.title} came with sha256 {found[:12]}..., and should have {remote.sha256[:12]}..."
    try:
        check_file(path)
    except ModelError as error:
        return str(error).replace(str(path), remote.title)
    return None


def _fetch_all(partial: FileIO, remote: RemoteFile, send: Send) -> None:
    """Go on from the end of what is there, and again where it breaks off, until all has come."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            send(before, lambda status, headers: _Arrival(partial, remote, status, headers).receiver())
            return
        except _UselessError as error:
            partial.truncate(0)
            failures, reason = failures + 1, str(error)
        except OSError as error:
            failures = 0 if _size(partial) > before + MIN_PROGRESS_BYTES else failures + 1
            reason = str(error) or type(error).__name__
        if failures >= MAX_FAILURES:
            raise ModelError(f"{remote.title} cannot be fetched: {reason}, {failures} times")
        log.warning("%s: the transfer broke off (%s); it goes on from byte %d", remote.title, reason, _size(partial))
        time.sleep(PAUSE_S * 2**failures / 2)


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


class _UselessError(Exception):
    """What has come so far is none of the file."""


class _Arrival:
    """One answer on its way into the partial file."""

    def __init__(self, partial: FileIO, remote: RemoteFile, status: int, headers: Mapping[str, str]) -> None:
        self._partial = partial
        self._pace = Pace()
        self._remote = remote
        self._status = status
        self._headers = headers

    def receiver(self) -> Callable[[bytes], None] | None:
        """What takes the body; None if the answer is none that holds the file, or has nothing left to say."""
        offset = _size(self._partial)
        if self._status == 416 and offset:
            total = re.fullmatch(r"bytes \*/(\d+)", self._headers.get("Content-Range", ""))
            if total and int(total[1]) == offset:
                return lambda piece: None
            raise _UselessError("what has come is longer than the file")
        if self._status not in (200, 206):
            return None
        if self._status == 206 and not self._headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise _UselessError("another part came than was asked for")
        if self._status == 200:
            self._partial.truncate(0)
        return self._append(self._expect_bytes())

    def _expect_bytes(self) -> int:
        """How many bytes may come: those announced, or what the disk has room for.

        Raises:
            ModelError: they do not fit on the disk.
        """
        free = shutil.disk_usage(Path(self._partial.name).parent).free
        there = _size(self._partial)
        length = self._headers.get("Content-Length", "")
        announced = int(length) if length.isdecimal() else None
        needed = announced if announced is not None else max((self._remote.size or 0) - there, 0)
        check_room(self._remote.title, needed, free, Path(self._partial.name).parent)
        return announced if announced is not None else free

    def _append(self, room: int) -> Callable[[bytes], None]:
        bar, left = CountingBar(unit="B", total=room if self._headers.get("Content-Length") else None), room

        def take(piece: bytes) -> None:
            nonlocal left
            left -= len(piece)
            if left < 0:
                raise ModelError(f"{self._remote.title} is larger than the disk has room for")
            self._write(piece)
            try:
                self._pace.note(len(piece))
            except TooSlowError as error:
                raise ModelError(f"{self._remote.title} cannot be fetched: {error}") from error
            bar.update(len(piece))

        return take

    def _write(self, piece: bytes) -> None:
        left = memoryview(piece)
        try:
            while left:
                left = left[self._partial.write(left) or 0 :]
        except OSError as error:
            self._partial.truncate(0)  # so that others have the room
            folder = Path(self._partial.name).parent
            raise ModelError(f"{self._remote.title} cannot be written to {folder}: {error.strerror}") from error


def check_room(title: str, needed: int, free: int, folder: Path) -> None:
    """Refuse what does not fit on the disk.

    Args:
        needed: in bytes, as `free`.

    Raises:
        ModelError: it does not fit.
    """
    if needed > free:
        raise ModelError(f"{title} needs {needed / 1e9:.2f} GB, and {folder} has {free / 1e9:.2f} GB free")
