"""Refuses picture files made of too many parts, or that need too many passes, before Pillow opens them.

Pillow takes a step in Python for each part before the pixels, so a file of nothing but parts holds a core for many
seconds, and keeps what it finds. What is no PNG, JPEG or WEBP is not judged here.
"""

import re
import struct
from collections.abc import Generator, Iterator

from worker.errors import UnusablePictureError

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


def count_scans(data: bytes) -> int:
    """How many scans a JPEG has up to its end; 0 for other files.

    Raises:
        UnusablePictureError: if the file is made of so many parts that opening it would take seconds.
    """
    scans = work = 0
    for cost, is_scan in _parts(data):
        work += cost
        scans += is_scan
        if work > _MAX_WORK:
            raise UnusablePictureError("the file is made of too many parts")
    return scans


def _parts(data: bytes) -> Iterator[tuple[int, bool]]:
    """What each part costs, and whether it is a scan."""
    if data.startswith(b"\xff\xd8\xff"):
        return _segments(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_chunks(data)
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
