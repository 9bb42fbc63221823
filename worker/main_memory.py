"""How much main memory is left to this process: the machine's, or what its container may take."""

import re
from pathlib import Path

_ROOT = Path("/")
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
# Of both versions of Linux's control groups: limit, usage, and details. Pages of files are given up for something else.
_GROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat", ""),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
        "sys/fs/cgroup/memory/memory.stat",
        "total_",
    ),
)


def find_free_main_memory(root: Path = _ROOT) -> int | None:
    """Bytes that this process can still take; None where the system does not say."""
    found = [_find_available(root), *(_find_left(root, *one) for one in _GROUPS)]
    return min((one for one in found if one is not None), default=None)


def _find_available(root: Path) -> int | None:
    found = _AVAILABLE.search(_read(root / "proc/meminfo"))
    return int(found[1]) * 1024 if found else None


def _find_left(root: Path, limit: str, usage: str, details: str, prefix: str) -> int | None:
    """Of a container's limit; a container without one has a word there, or more than any machine has."""
    most, used = (_read(root / name).strip() for name in (limit, usage))
    pages = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", _read(root / details), re.MULTILINE)
    if not (most.isdecimal() and used.isdecimal()):
        return None
    return max(0, int(most) - int(used) + sum(map(int, pages)))


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""
