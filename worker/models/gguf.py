"""The header of a GGUF file -> its tensors, each in bounds and inside the file, before any library reads it.

The format is ggml's (github.com/ggml-org/ggml, docs/gguf.md): counts, then entries of name and value, then for each
tensor its name, sides, type and place. Like safetensors it is data without code; but whoever believes its numbers can
be made to reserve any memory, or to read one piece of a file ten thousand times. Nothing here knows torch.
"""

import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from worker.errors import ModelError
from worker.files import open_file, wait_for_disk
from worker.models.paths import name_unreadable

GGUF = ".gguf"
MAX_HEADER_BYTES = 16_000_000
MAX_TENSORS = 20_000  # of one file
MAX_ENTRIES = 10_000
MAX_VALUES = 100_000  # in all lists together
MAX_NAME_BYTES = 500
MAX_SIDES = 4  # of a tensor
MAX_ALIGNMENT = 65_536  # bytes

_MAGIC = b"GGUF"
_VERSIONS = 2, 3
_STRING, _LIST, _UINT32 = 8, 9, 4
_SCALARS = MappingProxyType({0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8})  # kind -> bytes
_ALIGNMENT = "general.alignment"
_USUAL_ALIGNMENT = 32


@dataclass(frozen=True)
class Packing:
    """How numbers of one type lie in a file: so many in a block of so many bytes."""

    name: str
    numbers: int
    bytes: int


# Those that diffusers can read.
PACKINGS: Mapping[int, Packing] = MappingProxyType(
    {
        0: Packing("F32", 1, 4),
        1: Packing("F16", 1, 2),
        2: Packing("Q4_0", 32, 18),
        3: Packing("Q4_1", 32, 20),
        6: Packing("Q5_0", 32, 22),
        7: Packing("Q5_1", 32, 24),
        8: Packing("Q8_0", 32, 34),
        10: Packing("Q2_K", 256, 84),
        11: Packing("Q3_K", 256, 110),
        12: Packing("Q4_K", 256, 144),
        13: Packing("Q5_K", 256, 176),
        14: Packing("Q6_K", 256, 210),
        20: Packing("IQ4_NL", 32, 18),
        23: Packing("IQ4_XS", 256, 136),
        30: Packing("BF16", 1, 2),
    }
)


@dataclass(frozen=True)
class GgufTensor:
    """What a file says of one tensor.

    Attributes:
        shape: as torch has it, the longest stride first.
    """

    shape: tuple[int, ...]
    packing: Packing
    offset: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) // self.packing.numbers * self.packing.bytes


class _BadHeaderError(ValueError):
    """What stands in a header cannot be."""


@dataclass
class _Cursor:
    """Reads a header from its start on; what would pass its end is said instead."""

    content: bytes
    place: int = 0
    values_left: int = field(default=MAX_VALUES)

    def take(self, size: int) -> bytes:
        if size > len(self.content) - self.place:
            raise _BadHeaderError(
                f"its header ends, or passes {MAX_HEADER_BYTES:,} bytes, before all that it announces"
            )
        self.place += size
        return self.content[self.place - size : self.place]

    def number(self, form: str) -> int:
        return int(struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0])

    def name(self) -> str:
        if (length := self.number("Q")) > MAX_NAME_BYTES:
            raise _BadHeaderError(f"it holds a name of {length} bytes; allowed: {MAX_NAME_BYTES}")
        try:
            text = self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BadHeaderError("it holds a name that is no UTF-8") from error
        if not text.isprintable():
            raise _BadHeaderError(f"it holds the name {text[:80]!r}")
        return text

    def count(self, what: str, most: int) -> int:
        if (count := self.number("Q")) > most:
            raise _BadHeaderError(f"it holds {count} {what}; allowed: {most}")
        return count

    def skip_value(self, kind: int) -> None:
        if kind in _SCALARS:
            self.take(_SCALARS[kind])
        elif kind == _STRING:
            self.take(self.number("Q"))
        elif kind == _LIST:
            self._skip_list()
        else:
            raise _BadHeaderError(f"it holds a value of the unknown kind {kind}")

    def _skip_list(self) -> None:
        kind, count = self.number("I"), self.count("values in lists", self.values_left)
        if kind == _LIST:
            raise _BadHeaderError("it holds a list of lists")
        self.values_left -= count
        for _ in range(count):
            self.skip_value(kind)


def read_gguf(path: Path) -> Mapping[str, GgufTensor]:
    """The tensors of a file by name.

    Raises:
        ModelError: it is damaged, or holds what no such file does; says what.
    """
    with name_unreadable():
        content, size = wait_for_disk(path, lambda came: _read_start(path, came))
    if not content.startswith(_MAGIC):
        raise ModelError(f"{path} is {'empty' if not content else 'no GGUF file, whatever its name says'}")
    try:
        return _read_header(_Cursor(content, len(_MAGIC)), size)
    except _BadHeaderError as error:
        raise ModelError(f"{path} is no GGUF file that can be read: {error}") from error


def _read_start(path: Path, came: Callable[[], None]) -> tuple[bytes, int]:
    with open_file(path) as file:
        size, pieces, left = os.fstat(file.fileno()).st_size, [], MAX_HEADER_BYTES
        while left and (piece := file.read(min(left, 1 << 20))):
            came()
            pieces.append(piece)
            left -= len(piece)
    return b"".join(pieces), size


def _read_header(cursor: _Cursor, size: int) -> Mapping[str, GgufTensor]:
    if (version := cursor.number("I")) not in _VERSIONS:
        raise _BadHeaderError(f"it is of version {version}; read are {' and '.join(map(str, _VERSIONS))}")
    tensors, entries = cursor.count("tensors", MAX_TENSORS), cursor.count("entries", MAX_ENTRIES)
    alignment = _read_entries(cursor, entries)
    found: dict[str, GgufTensor] = {}
    for _ in range(tensors):
        name = cursor.name()
        if name in found:
            raise _BadHeaderError(f"it holds {name} twice")
        found[name] = _read_tensor(cursor, name)
    start = -(-cursor.place // alignment) * alignment
    for name, tensor in found.items():
        if start + tensor.offset + tensor.size > size:
            raise _BadHeaderError(f"it is incomplete: {name} ends behind its last byte")
    if sum(tensor.size for tensor in found.values()) > size:
        raise _BadHeaderError("its tensors overlap: together they are larger than it")
    return MappingProxyType(found)


def _read_entries(cursor: _Cursor, count: int) -> int:
    """Pass over what the file says of itself; the bytes whose multiples its tensors start at."""
    alignment, seen = _USUAL_ALIGNMENT, set()
    for _ in range(count):
        name, kind = cursor.name(), cursor.number("I")
        if name in seen:
            raise _BadHeaderError(f"it holds {name} twice")
        seen.add(name)
        if name == _ALIGNMENT:
            alignment = cursor.number("I") if kind == _UINT32 else 0
            if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
                raise _BadHeaderError(f"its {_ALIGNMENT} is no power of two up to {MAX_ALIGNMENT}")
        else:
            cursor.skip_value(kind)
    return alignment


def _read_tensor(cursor: _Cursor, name: str) -> GgufTensor:
    if not 1 <= (count := cursor.number("I")) <= MAX_SIDES:
        raise _BadHeaderError(f"{name} has {count} sides; allowed: 1 to {MAX_SIDES}")
    sides = [cursor.number("Q") for _ in range(count)]
    kind = cursor.number("I")
    packing = PACKINGS.get(kind)
    if packing is None:
        allowed = ", ".join(one.name for one in PACKINGS.values())
        raise _BadHeaderError(f"{name} is of ggml's type {kind}; read are {allowed}")
    if min(sides) < 1 or sides[0] % packing.numbers:
        raise _BadHeaderError(f"{name} has {sides[0]} numbers in a row; {packing.name} packs {packing.numbers} at once")
    return GgufTensor(tuple(reversed(sides)), packing, cursor.number("Q"))


def describe_packings(tensors: Mapping[str, GgufTensor]) -> str:
    """How many tensors are of which type, the most first."""
    counts = Counter(tensor.packing.name for tensor in tensors.values())
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
