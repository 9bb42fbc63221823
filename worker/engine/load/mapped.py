"""Weights that libraries have mapped from files -> weights in memory of their own.

A process that reads a mapped page of a file that has become shorter, or whose disk is gone, is ended by the system on
the spot (SIGBUS); and what is written to the file changes the weights. So nothing that stays in main memory is mapped.
"""

import re
from bisect import bisect
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path

import torch

_ALIGNMENT = 64  # bytes
_MAPS = Path("/proc/self/maps")  # of Linux
_FROM_A_FILE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ [1-9]\d* +/(?!memfd:)", re.MULTILINE)

Ranges = list[tuple[int, int]]  # of addresses, from and up to


def copy_mapped_weights(modules: Iterable[torch.nn.Module]) -> int:
    """Copy the weights of these that are mapped from files; bytes copied."""
    ranges = _find_ranges()
    copied = 0
    for module in modules if ranges else ():
        for weight in (*module.parameters(), *module.buffers()):
            if weight.device.type == "cpu" and _is_within(weight.data_ptr(), ranges):
                weight.data = _copy(weight.data)
                copied += weight.nbytes
    return copied


def _copy(weight: torch.Tensor) -> torch.Tensor:
    """The same numbers at an address that is as far from a multiple of 64: CPUs round sums by how they are aligned."""
    size = weight.element_size()
    room = torch.empty(weight.nbytes + _ALIGNMENT, dtype=torch.uint8)
    shift = (weight.data_ptr() - room.data_ptr()) % _ALIGNMENT
    if shift % size or not weight.is_contiguous():
        return weight.clone()
    return room[shift : shift + weight.nbytes].view(weight.dtype).view(weight.shape).copy_(weight)


def _is_within(address: int, ranges: Ranges) -> bool:
    place = bisect(ranges, address, key=itemgetter(0))
    return place > 0 and address < ranges[place - 1][1]


def _find_ranges() -> Ranges:
    """The addresses at which files are mapped, in their order; none where the system does not say."""
    try:
        text = _MAPS.read_text("utf-8", errors="replace")
    except OSError:
        return []
    return [(int(start, 16), int(end, 16)) for start, end in _FROM_A_FILE.findall(text)]
