"""Lists what a worker's start reads before its model: files that Python opens, parts of libraries that are used.

Run once when the image is built, in its environment: `python list_start_files.py > "$VIRTUAL_ENV/start-files.txt"`.
A line is an offset, a number of bytes and a path. A start then reads them ahead (worker/read_ahead.py). A build has no
GPU, so cuDNN and cuBLAS, which torch opens where there is one, are added by name.
"""

import gc
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_LATER = ("nvidia/cudnn/lib/libcudnn*.so*", "nvidia/cu*/lib/libcublas*.so*")  # beside torch
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/\S+\.so[\w.]*)$", re.MULTILINE)
_ENTRY = 8  # bytes that /proc/self/pagemap has for each page
_IN_MEMORY = 0x80  # of an entry's last byte
_GAP = 256 << 10  # bytes between two parts that are read as one


class _Part(NamedTuple):
    offset: int
    size: int
    file: str


def main() -> None:
    """Import what a worker imports, and print what was read, in that order."""
    opened: list[object] = []
    sys.addaudithook(lambda event, given: opened.append(given[0]) if event == "open" else None)
    gc.disable()  # imports leave no garbage
    from worker.models.quantised import may_be_quantised
    from worker.settings import list_unused_packages
    from worker.spared_imports import spare_imports

    spare_imports(list_unused_packages(may_be_quantised))
    import worker.runtime.worker

    assert worker.runtime.worker
    later = list(_list_later())
    used = {file: parts for file, parts in _list_libraries() if file not in later}
    plain = [file for file in map(os.path.abspath, _names(list(opened))) if file not in used]
    parts = [*map(_whole, plain), *(part for parts in used.values() for part in parts), *map(_whole, later)]
    for part in dict.fromkeys(part for part in parts if part.size > 0):
        print(*part)


def _names(opened: Iterable[object]) -> Iterator[str]:
    return (os.fsdecode(one) for one in opened if isinstance(one, (str, bytes, os.PathLike)))


def _whole(file: str) -> _Part:
    """All of it; nothing, where there is no such file."""
    return _Part(0, os.path.getsize(file) if os.path.isfile(file) else 0, file)


def _list_libraries() -> Iterator[tuple[str, list[_Part]]]:
    """Those that are mapped into this process, and what of each is in its memory; all, if the system does not tell."""
    used: dict[str, list[int]] = {}
    with suppress(OSError), open("/proc/self/pagemap", "rb") as pages:
        for start, end, offset, file in _MAPPING.findall(Path("/proc/self/maps").read_text()):
            first, last = (int(address, 16) // mmap.PAGESIZE for address in (start, end))
            pages.seek(first * _ENTRY)
            entries = pages.read((last - first) * _ENTRY)[_ENTRY - 1 :: _ENTRY]
            there = (number * mmap.PAGESIZE for number, entry in enumerate(entries) if entry & _IN_MEMORY)
            used.setdefault(file, []).extend(int(offset, 16) + one for one in there)
    for file in {one[-1]: None for one in _MAPPING.findall(Path("/proc/self/maps").read_text())}:
        yield file, [_Part(start, end - start, file) for start, end in _join(used[file])] if used else [_whole(file)]


def _join(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first byte of each run of pages, and the one after its last."""
    runs: list[list[int]] = []
    for offset in sorted(offsets):
        if not runs or offset > runs[-1][1] + _GAP:
            runs.append([offset, offset])
        runs[-1][1] = offset + mmap.PAGESIZE
    return ((start, end) for start, end in runs)


def _list_later() -> Iterator[str]:
    spec = find_spec("torch")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else Path()
    for pattern in _LATER:
        yield from map(str, sorted(packages.glob(pattern)))


if __name__ == "__main__":
    main()
