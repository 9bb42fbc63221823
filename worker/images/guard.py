"""Refuses picture files made of too many parts, or that need too many passes, before Pillow opens them.

Pillow takes a step in Python for each part before the pixels, so a file of nothing but parts holds a core for many
seconds, and keeps what it finds. Codecs that Pillow runs in Python, or that few files need, are refused as well. What
is of none of the formats that are read is not judged here.
"""

import re
import struct
from collections.abc import Generator, Iterator

from worker.errors import UnusablePictureError
from worker.images.avif import count_decoded_pixels, is_avif

# The Pillow whose work for each part the costs below bound, in steps as long as the one for an empty PNG chunk.
MEASURED_WITH = "13.0.0"
# Steps that Pillow takes in a fraction of a second. A PNG of 20 MB has 2,500 chunks of pixels, a JPEG 320 segments.
_MAX_WORK = 50_000
_SEGMENT = 50  # what one segment of a JPEG costs
_EXIF = 500  # what one with EXIF costs besides, which Pillow copies together with all before it
_INFLATED = 1_000  # what a PNG chunk costs at most that is inflated; 1 KB may become 1 MB, in 10 ms
_INFLATED_KINDS = (b"iCCP", b"zTXt", b"iTXt")

# JPEG markers, ITU T.81, table B.1. Within a scan FF00 and the restart markers are data.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_BEHIND_A_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_WITH_LENGTH = frozenset([*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE]) - {0xC8}
_FRAMES_AND_TABLES = frozenset([*range(0xC0, 0xD0), 0xDB]) - {0xC4, 0xC8, 0xCC}
_END, _SCAN, _APP1, _PHOTOSHOP = 0xD9, 0xDA, 0xE1, 0xED

_AVIF_PICTURES = 4  # colour and transparency, each in two layers
_GIF = (b"GIF87a", b"GIF89a")
_LOOP = b"NETSCAPE2.0"
_EXTENSION, _FRAME, _TRAILER, _COMMENT, _APPLICATION = 0x21, 0x2C, 0x3B, 0xFE, 0xFF
# BMP: the oldest header tells no compression; RLE8 and RLE4 are undone in Python.
_CORE_HEADER, _RUN_LENGTHS = b"\x0c\0\0\0", (b"\1\0\0\0", b"\2\0\0\0")
_TIFF_LITTLE, _TIFF_BIG = b"II*\0", b"MM\0*"
# TIFF 6.0: tags whose value is a directory, and what pixels may be packed by: not at all, LZW, Deflate (two numbers) or
# PackBits.
_TIFF_COMPRESSION, _TIFF_DIRECTORIES = 259, (330, 34665, 34853, 40965)
_TIFF_PACKED = (1, 5, 8, 32773, 32946)
_TIFF_SHORT, _TIFF_LONG = 3, 4
_TIFF_BYTES = (1, 2, 6, 7)  # types whose values Pillow takes together


def count_scans(data: bytes) -> int:
    """How many scans a JPEG has up to its end; 0 for other files.

    Raises:
        UnusablePictureError: if the file is made of so many parts that opening it would take seconds.
    """
    scans, budget = 0, _Budget()
    for cost, is_scan in _parts(data):
        budget.spend(cost)
        scans += is_scan
    return scans


def count_hidden_pixels(data: bytes) -> int:
    """Of how large a picture this file is that tells a smaller size, or may: a GIF by its first frame, an AVIF by all
    that is decoded for it, of which four times as much is usual; 0 for other files.

    Raises:
        UnusablePictureError: as `count_scans`, or because the file is of a kind that is not read.
    """
    if data.startswith(_GIF):
        return _gif_frame_pixels(data)
    if data.startswith(b"BM") and data[14:18] != _CORE_HEADER and data[30:34] in _RUN_LENGTHS:
        raise UnusablePictureError("a BMP with run-length encoding is not read; save it without, or as PNG")
    if data[:2] in (b"II", b"MM") and not data.startswith((_TIFF_LITTLE, _TIFF_BIG)):
        raise UnusablePictureError("a TIFF of that kind is not read; save it as PNG")
    return count_decoded_pixels(data, _Budget().spend) // _AVIF_PICTURES if is_avif(data) else 0


class _Budget:
    """The steps that a file may still cost."""

    def __init__(self) -> None:
        self.left = _MAX_WORK

    def spend(self, cost: int) -> None:
        """Take them, if there are as many."""
        self.left -= cost
        if self.left < 0:
            raise UnusablePictureError("the file is made of too many parts")


def _parts(data: bytes) -> Iterator[tuple[int, bool]]:
    """What each part costs, and whether it is a scan."""
    if data.startswith(b"\xff\xd8\xff"):
        return _segments(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_chunks(data)
    if data.startswith(_GIF):
        return _gif_blocks(data)
    if data.startswith((_TIFF_LITTLE, _TIFF_BIG)):
        return _tiff_values(data)
    return _riff_chunks(data) if data.startswith(b"RIFF") else iter(())


def _png_chunks(data: bytes) -> Iterator[tuple[int, bool]]:
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield 1 + (min(length, _INFLATED) if kind in _INFLATED_KINDS else 0), False
        if kind == b"IEND":
            return
        place += length + 12


def _riff_chunks(data: bytes) -> Iterator[tuple[int, bool]]:
    place = 12
    while place + 8 <= len(data):
        yield 1, False
        length = struct.unpack_from("<I", data, place + 4)[0]
        place += 8 + length + length % 2


def _segments(data: bytes) -> Iterator[tuple[int, bool]]:
    """A JPEG's, up to its end; what cameras put behind that does not count."""
    place = yield from _segments_before_a_scan(data)
    while found := _MARKER_BEHIND_A_SCAN.search(data, place):
        kind, start = data[found.end() - 1], found.end()
        if kind == _END:
            return
        yield _SEGMENT, kind == _SCAN
        place = _end_of_segment(data, kind, start)


def _segments_before_a_scan(data: bytes) -> Generator[tuple[int, bool], None, int]:
    """Those that Pillow reads, which takes a step for each byte between them too; returns where the first scan is."""
    place = 2
    while found := _MARKER.search(data, place, place + _MAX_WORK):
        kind, start = data[found.end() - 1], found.end()
        end = _end_of_segment(data, kind, start)
        yield found.start() - place + _SEGMENT + _inner_parts(data, kind, start, end), kind == _SCAN
        place = end
        if kind == _SCAN:
            return place
    yield max(0, len(data) - place), False
    return len(data)


def _end_of_segment(data: bytes, kind: int, start: int) -> int:
    return start + max(2, int.from_bytes(data[start : start + 2])) if kind in _WITH_LENGTH else start


def _inner_parts(data: bytes, kind: int, start: int, end: int) -> int:
    """The tables, components, resources and EXIF that Pillow handles one by one: their cost beside the segment's."""
    if kind in _FRAMES_AND_TABLES:
        return (end - start) // 3
    if kind == _APP1 and data.startswith(b"Exif\0\0", start + 2):
        return _EXIF
    return data.count(b"8BIM", start, end) if kind == _PHOTOSHOP else 0


def _gif_blocks(data: bytes) -> Generator[tuple[int, bool], None, int]:
    """What Pillow reads before the first frame, in its own way: a byte that begins nothing is skipped by itself.

    Returns where the frame is.
    """
    flags = data[10] if len(data) > 10 else 0
    place = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    while place < len(data) and data[place] not in (_FRAME, _TRAILER):
        yield 1, False
        place = (yield from _gif_extension(data, place + 1)) if data[place] == _EXTENSION else place + 1
    return place


def _gif_extension(data: bytes, place: int) -> Generator[tuple[int, bool], None, int]:
    """Its blocks, up to an empty one, which Pillow looks for behind the first; returns where it ends."""
    label = data[place] if place < len(data) else 0
    loops = label == _APPLICATION and data[place + 1 : place + 2] >= b"\x0b" and data.startswith(_LOOP, place + 2)
    place, filled = _skip_block(data, place + 1)
    if loops:
        place, filled = _skip_block(data, place)
    filled = filled or label != _COMMENT
    while filled:
        yield 1, False
        place, filled = _skip_block(data, place)
    return place


def _skip_block(data: bytes, place: int) -> tuple[int, bool]:
    """Where the next block is, and whether this one holds anything."""
    size = data[place] if place < len(data) else 0
    return place + 1 + size, size > 0


def _gif_frame_pixels(data: bytes) -> int:
    """What the first frame takes, on a screen that may be smaller than it."""
    walk = _gif_blocks(data)
    try:
        while True:
            next(walk)
    except StopIteration as end:
        sides = data[end.value + 1 : end.value + 9].ljust(8, b"\0")
    left, top, width, height = struct.unpack("<4H", sides)
    return int((left + width) * (top + height))


def _tiff_values(data: bytes) -> Iterator[tuple[int, bool]]:
    """The values of the first directory, which Pillow unpacks one by one, and the entries of those inside it.

    Raises:
        UnusablePictureError: the pixels are packed in a way that is not read.
    """
    order = "<" if data.startswith(_TIFF_LITTLE) else ">"
    for tag, kind, count, value in _tiff_entries(data, order, *struct.unpack_from(order + "I", data.ljust(8), 4)):
        yield 1 + (0 if kind in _TIFF_BYTES else count), False
        plain = kind in (_TIFF_SHORT, _TIFF_LONG) and count == 1
        if tag == _TIFF_COMPRESSION and not (plain and _first(order, kind, value) in _TIFF_PACKED):
            raise UnusablePictureError("that TIFF is packed in a way that is not read; save it as PNG")
        if tag in _TIFF_DIRECTORIES:
            inner = _tiff_entries(data, order, _first(order, kind, value))
            yield sum(1 + (0 if kind in _TIFF_BYTES else count) for _, kind, count, _ in inner), False


def _tiff_entries(data: bytes, order: str, place: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, number of values, and the value or where it is."""
    if place + 2 > len(data):
        return
    (count,) = struct.unpack_from(order + "H", data, place)
    for start in range(place + 2, min(place + 2 + 12 * count, len(data) - 11), 12):
        yield struct.unpack_from(order + "HHI4s", data, start)


def _first(order: str, kind: int, value: bytes) -> int:
    return int(struct.unpack_from(order + ("H" if kind == _TIFF_SHORT else "I"), value)[0])
