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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_LATER = ("nvidia/cudnn/lib/libcudnn*.so*", "nvidia/cu*/lib/libcublas*.so*")  # beside torch
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.+\.so[\w.]*)$", re.MULTILINE)
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
    from worker.packages import list_unused_packages
    from worker.spared_imports import spare_imports

    with redirect_stdout(sys.stderr):  # what a package says is no file
        spare_imports(list_unused_packages())
        import worker.runtime.worker

        assert worker.runtime.worker
    files, libraries, later = list(_names(opened)), _list_libraries(), list(_list_later())
    used = [part for file, parts in libraries.items() if file not in later for part in parts]
    whole = [_whole(file) for file in files if file not in libraries]
    for part in dict.fromkeys([*whole, *used, *map(_whole, later)]):
        if part.size > 0:
            sys.stdout.buffer.write(os.fsencode(f"{part.offset} {part.size} {part.file}\n"))


def _names(opened: Iterable[object]) -> Iterator[str]:
    return (os.path.abspath(os.fsdecode(one)) for one in opened if isinstance(one, (str, bytes, os.PathLike)))


def _whole(file: str) -> _Part:
    """All of it; nothing, where there is no such file."""
    return _Part(0, os.path.getsize(file) if os.path.isfile(file) else 0, file)


def _list_libraries() -> Mapping[str, list[_Part]]:
    """Those that are mapped into this process, with what of each is in its memory; all, if the system does not tell."""
    mappings = _MAPPING.findall(os.fsdecode(Path("/proc/self/maps").read_bytes()))
    used: dict[str, list[int]] = {file: [] for *_, file in mappings}
    with suppress(OSError), open("/proc/self/pagemap", "rb") as pages:
        for start, end, offset, file in mappings:
            first, last = (int(address, 16) // mmap.PAGESIZE for address in (start, end))
            pages.seek(first * _ENTRY)
            entries = pages.read((last - first) * _ENTRY)[_ENTRY - 1 :: _ENTRY]
            there = (number * mmap.PAGESIZE for number, entry in enumerate(entries) if entry & _IN_MEMORY)
            used[file] += (int(offset, 16) + one for one in there)
    return {file: _join(file, offsets) or [_whole(file)] for file, offsets in used.items()}


def _join(file: str, offsets: Iterable[int]) -> list[_Part]:
    """Pages that are near each other as one part."""
    parts: list[_Part] = []
    for offset in sorted(set(offsets)):
        last = parts.pop() if parts and offset <= parts[-1].offset + parts[-1].size + _GAP else None
        start = last.offset if last else offset
        parts.append(_Part(start, offset + mmap.PAGESIZE - start, file))
    return parts


def _list_later() -> Iterator[str]:
    spec = find_spec("torch")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else Path()
    for pattern in _LATER:
        yield from map(str, sorted(packages.glob(pattern)))


if __name__ == "__main__":
    main()
