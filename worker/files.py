"""Opens regular files and nothing else, and waits for no disk without end; knows paths, not what is in the files.

A name may stand for a pipe, a device, a socket, a folder or a link to nothing, and be another thing a moment later. A
network volume may keep whoever asks it waiting for ever; such waiting is done in a thread that can be left behind.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TypeVar

from worker.waiting import CHECK_S, start_thread, wait_for

STALL_S = 30.0  # without an answer, a byte or a name, until a disk is given up
IN_MEMORY = "/dev/shm"  # a folder of Linux's
_DISK_FAULTS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)
_PIECE_BYTES = 4_194_304
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Came = Callable[[], None]  # to be called whenever something has come
Result = TypeVar("Result")


class UnreadableError(OSError):
    """A path that cannot be read as a file, or a folder.

    Attributes:
        reason: what it is, or what happened, to be said after the path.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.reason = reason


class OversizeError(UnreadableError):
    """The file is longer than it may be."""


class DiskError(UnreadableError):
    """The disk fails, or a file changes in mid-read: another time it may be read."""


class StalledError(DiskError):
    """The disk does not answer."""


def open_file(path: Path, flags: int = os.O_RDONLY) -> FileIO:
    """A regular file, or a link to one, opened for reading; whatever else has this name is left alone.

    Args:
        flags: of the system's own, for example not to follow a link.

    Raises:
        UnreadableError: it is none, or cannot be opened.
    """
    with _say_reason(path):
        _check_regular(path, os.stat(path).st_mode)  # to open a device may already do something
        number = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep its reader waiting
        file = FileIO(number)
        try:
            _check_regular(path, os.fstat(number).st_mode)  # it may be another one by now
        except BaseException:
            file.close()
            raise
        return file


def check_readable(path: Path) -> None:
    """Check that this is a regular file that can be opened.

    Raises:
        UnreadableError: it is none, or the disk does not answer.
    """
    wait_for_disk(path, lambda came: open_file(path).close())


def read_file(path: Path, max_bytes: int, check: Callable[[], None] = lambda: None, flags: int = os.O_RDONLY) -> bytes:
    """All of a regular file.

    Args:
        flags: as in `open_file`.
        check: called while the disk is waited for; what it raises ends that.

    Raises:
        UnreadableError: it is none, is longer than that, changes meanwhile, or the disk does not answer.
    """

    def read(came: Came) -> bytes:
        with open_file(path, flags) as file:
            return b"".join(_read_pieces(path, file, max_bytes, came))

    return wait_for_disk(path, read, check)


@contextmanager
def copy_to_memory(path: Path, max_bytes: int) -> Iterator[Path]:
    """Inside the `with`, a file with the bytes that a regular file holds now, for libraries that want a path.

    They map files into memory; the process would end if a mapped file became shorter, and read on whatever else is
    written to it. What they have mapped of the copy stays as it is.

    Raises:
        UnreadableError: as in `read_file`.
    """

    def read(came: Came) -> None:
        with open_file(path) as file:
            for piece in _read_pieces(path, file, max_bytes, came):
                copy.write(piece)
        copy.flush()

    in_memory = hasattr(os, "memfd_create")  # on Linux
    with open(os.memfd_create("copy"), "wb") if in_memory else tempfile.TemporaryFile() as copy:
        wait_for_disk(path, read)
        yield Path(f"/dev/fd/{copy.fileno()}")


def settle_temporary_folder() -> str | None:
    """Let libraries have a temporary folder, for whose name some ask when they are imported.

    Returns:
        what the owner should know, if Python finds none that can be written: the root is read-only, or its disk full.
    """
    try:
        tempfile.tempdir = tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else "/tmp"
    if tempfile.tempdir == IN_MEMORY:
        return f"temporary files go to {IN_MEMORY}: no other folder for them can be written"
    writable = os.access(tempfile.tempdir, os.W_OK)
    return None if writable else "no folder for temporary files can be written; set TMPDIR to one that can be"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Inside the `with`, a folder for a few small files: in memory where that is offered, so that no disk is needed.

    Raises:
        UnreadableError: there is no place for one.
    """
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    try:
        folder = tempfile.TemporaryDirectory(prefix="worker-", dir=place)
    except OSError as error:
        reason = f"cannot be written, nor any other folder for temporary files: {error.strerror}; set TMPDIR to one"
        raise UnreadableError(place or "/tmp", reason) from error
    with folder as name:
        yield Path(name)


def find_size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        UnreadableError: as in `open_file`; or the disk does not answer.
    """

    def look(came: Came) -> int:
        with open_file(path) as file:
            return os.fstat(file.fileno()).st_size

    return wait_for_disk(path, look)


def exists(path: Path) -> bool:
    """Whether anything has this name, a link to nothing too.

    Raises:
        StalledError: the disk does not answer.
    """

    def look(came: Came) -> bool:
        try:
            os.lstat(path)
        except PermissionError:
            return True  # of a folder on the way; whoever opens it is told so
        except (OSError, ValueError):  # not there, or no name at all
            return False
        return True

    return wait_for_disk(path, look)


def follow_links(path: Path, check: Callable[[], None] = lambda: None) -> Path:
    """What a path stands for once all links are followed.

    Args:
        check: called while the disk is waited for; what it raises ends that.

    Raises:
        UnreadableError: there is no such thing, or the disk does not answer.
    """

    def look(came: Came) -> Path:
        with _say_reason(path):
            return Path(os.path.realpath(path, strict=True))

    return wait_for_disk(path, look, check)


def is_folder(path: Path) -> bool:
    """Whether a folder, or a link to one, has this name.

    Raises:
        StalledError: the disk does not answer.
    """
    return wait_for_disk(path, lambda came: os.path.isdir(path))


def list_folder(path: Path) -> list[str]:
    """The names in a folder, sorted.

    Raises:
        UnreadableError: it is none, cannot be read, or the disk does not answer.
    """

    def look(came: Came) -> list[str]:
        with _say_reason(path):
            _check_folder(path)
            return sorted(os.listdir(path))

    return wait_for_disk(path, look)


def check_folder(path: Path) -> None:
    """Check that this is a folder that can be listed.

    Raises:
        UnreadableError: it is none, or the disk does not answer.
    """

    def look(came: Came) -> None:
        with _say_reason(path):
            _check_folder(path)
            os.scandir(path).close()

    wait_for_disk(path, look)


def walk_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """All that is below a folder, sorted, and a sentence for each folder in it that cannot be listed.

    Links to folders are not followed, which might lead in a circle.

    Raises:
        UnreadableError: the folder itself cannot be listed, or the disk does not answer.
    """
    found: list[Path] = []
    unread: list[str] = []

    def note(error: OSError) -> None:
        unread.append(str(UnreadableError(error.filename, _find_reason(Path(error.filename), error))))

    def walk(came: Came) -> None:
        for place, folders, files in os.walk(folder, onerror=note):
            came()
            found.extend(Path(place, name) for name in (*folders, *files))

    list_folder(folder)
    wait_for_disk(folder, walk)
    return sorted(found), unread


def wait_for_disk(path: Path, work: Callable[[Came], Result], check: Callable[[], None] = lambda: None) -> Result:
    """What `work` returns; it is done in a thread, which is left behind if nothing comes for `STALL_S`.

    Time is counted in looks, so that one in which the whole process is frozen counts as none.

    Args:
        work: is given what to call whenever something has come.
        check: called at every look; what it raises ends the waiting.

    Raises:
        StalledError: nothing has come.
    """
    looks = 0

    def came() -> None:
        nonlocal looks
        looks = 0

    def look() -> None:
        nonlocal looks
        check()
        looks += 1
        if looks * CHECK_S >= STALL_S:
            raise StalledError(path, f"does not answer: nothing has come from its disk or volume for {STALL_S:g} s")

    return wait_for(start_thread(lambda: work(came), "disk"), look)


def _read_pieces(path: Path, file: FileIO, max_bytes: int, came: Came) -> Iterator[bytes]:
    """All of an open file, which must not change meanwhile."""
    with _say_reason(path):
        before = os.fstat(file.fileno())
        if before.st_size > max_bytes:
            raise OversizeError(path, f"has {before.st_size} bytes; allowed are {max_bytes}")
        left = before.st_size
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            came()
            yield piece
        after = os.fstat(file.fileno())
        if left or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise DiskError(path, "was changed while it was read")


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnreadableError(path, f"is {_name_kind(mode)}, not a file")


def _check_folder(path: Path) -> None:
    mode = os.stat(path).st_mode
    if not stat.S_ISDIR(mode):
        raise UnreadableError(path, f"is {_name_kind(mode)}, not a folder")


def _name_kind(mode: int) -> str:
    return next((name for is_it, name in _KINDS if is_it(mode)), "something else")


@contextmanager
def _say_reason(path: Path) -> Iterator[None]:
    """Say in words what the system has against this path."""
    try:
        yield
    except UnreadableError:
        raise
    except ValueError as error:  # no name at all: it holds a zero
        raise UnreadableError(path, f"cannot be read: {error}") from error
    except OSError as error:
        kind = DiskError if error.errno in _DISK_FAULTS else UnreadableError
        raise kind(path, _find_reason(path, error)) from error


def _find_reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    if error.errno == errno.ENOENT:
        return "is a link to what is not there" if os.path.islink(path) else "is not there"
    return f"cannot be read: {error.strerror or error}"
