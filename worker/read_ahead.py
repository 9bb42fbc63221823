"""Reads what a start is about to need, while Python still imports: programs, libraries, weights.

A start reads thousands of files, one after the other and many of them in small pieces, and leaves a disk idle most of
the time. Threads that read the same before it is asked for turn that into one long read. What is in memory already is
not read again.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from worker.errors import WorkerError
from worker.main_memory import find_free_main_memory
from worker.models.checks import DENOISER
from worker.models.locate import seek
from worker.models.variants import choose_weights
from worker.settings import Settings, peek_settings

_GPU = Path("/dev/nvidiactl")
MANIFEST = Path(sys.prefix) / "start-files.txt"  # written when the image is built, by builder/list_start_files.py
MAX_SHARE = 0.5  # of the main memory that is free
THREADS = 4
CHUNK = 4 << 20  # bytes; whatever else is read meanwhile waits for what the threads have in hand


class Piece(NamedTuple):
    """Bytes of a file."""

    file: Path
    offset: int
    size: int


def begin_to_read() -> None:
    """Have threads read what a worker with these settings needs, where there is a GPU to carry it to."""
    settings = peek_settings() if _GPU.exists() else None
    if settings is not None:
        threading.Thread(target=lambda: _read(_list_pieces(settings)), name="read-ahead", daemon=True).start()


def _list_pieces(settings: Settings) -> Iterator[Piece]:
    """Each once, in the order in which it is needed."""
    with suppress(OSError):
        for line in MANIFEST.read_text("utf-8", "surrogateescape").split("\n"):
            with suppress(ValueError):  # what is no such line, an empty one at the end or whatever got in between
                offset, size, name = line.split(" ", 2)
                yield from _cut(Path(name), int(offset), int(size))
    for file in _list_weights(settings):
        with suppress(OSError):
            yield from _cut(file, 0, file.stat().st_size)


def _cut(file: Path, offset: int, size: int) -> Iterator[Piece]:
    end = offset + size
    return (Piece(file, start, min(CHUNK, end - start)) for start in range(offset, end, CHUNK))


def _list_weights(settings: Settings) -> Iterator[Path]:
    with suppress(WorkerError, OSError):
        place = seek(settings.model_name, settings.model_revision)
        if place is not None and place.is_dir():
            weights = list_weights(place, settings.model_variant)
            yield from (file for file in weights if settings.transformer_name is None or file.parent.name != DENOISER)
        elif place is not None:
            yield place
    with suppress(WorkerError, OSError):
        denoiser = seek(settings.transformer_name) if settings.transformer_name else None
        if denoiser is not None and denoiser.is_file():
            yield denoiser


def list_weights(folder: Path, variant: str | None) -> Iterator[Path]:
    """The weight files of a model in diffusers layout that will be loaded."""
    for component in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        names = choose_weights((file.name for file in component.iterdir()), variant).names
        yield from (component / name for name in names)


def _read(pieces: Iterator[Piece]) -> None:
    """Read them, several at a time, as far as memory allows."""
    lock = threading.Lock()
    left = MAX_SHARE * (find_free_main_memory() or 0)

    def work() -> None:
        nonlocal left
        buffer = memoryview(bytearray(CHUNK))
        while True:
            with lock:
                piece = next(pieces, None)
                left -= piece.size if piece else 0
            if piece is None or left < 0:
                return
            with suppress(OSError, ValueError, OverflowError):  # the last two: of a list that is damaged
                _read_piece(piece, buffer)

    threads = [threading.Thread(target=work, name=f"read-ahead-{i}", daemon=True) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read_piece(piece: Piece, buffer: memoryview) -> None:
    descriptor = os.open(piece.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not _is_in_memory(descriptor, piece.offset):
            os.preadv(descriptor, [buffer[: piece.size]], piece.offset)
    finally:
        os.close(descriptor)


def _is_in_memory(descriptor: int, offset: int) -> bool:
    """Whether the piece's first byte is in the page cache; where that cannot be asked, no."""
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError:
        return False
    return True
