"""Writes PNG by several threads. Pillow writes it by one, which takes a tenth of the time in which a GPU draws it.

Rows are filtered by Paeth's predictor, which is as good as the best filter for each row on pictures like these, and
compressed in strips that follow each other in one stream (RFC 2083; RFC 1950 and 1951 for the stream). ISA-L compresses
them, in a third to a seventh of zlib's time, to files that are larger: photographs by 5 %, flat shapes by 20 % or more.
"""

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from isal import isal_zlib as zlib
from PIL.Image import Image

COLOR_TYPES = {"L": 0, "RGB": 2, "RGBA": 6}  # of the modes that can be written
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_STRIPS = 8
MIN_STRIP_BYTES = 1 << 16

_PAETH = 4
_LEVEL, _WINDOW_BITS = 1, 15
_ZLIB_HEADER = b"\x78\x01"

_threads = ThreadPoolExecutor(MAX_STRIPS, thread_name_prefix="png")

Bytes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


def write_png(image: Image, text: str) -> bytes:
    """The picture as a file, with the text under "parameters".

    Args:
        image: of a mode in `COLOR_TYPES`.
    """
    header = struct.pack(">IIBBBBB", *image.size, 8, COLOR_TYPES[image.mode], 0, 0, 0)
    chunks = (("IHDR", header), _make_text(text), ("IDAT", _compress(image)), ("IEND", b""))
    return SIGNATURE + b"".join(_make_chunk(*chunk) for chunk in chunks)


def _make_chunk(kind: str, data: bytes) -> bytes:
    named = kind.encode() + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))


def _make_text(text: str) -> tuple[str, bytes]:
    """A chunk for the text: in Latin-1, if it can be, as every reader expects."""
    try:
        return "tEXt", b"parameters\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        return "iTXt", b"parameters\0\0\0\0\0" + text.encode()


def _compress(image: Image) -> bytes:
    """The stream of a picture's filtered rows."""
    pixels = np.asarray(image)
    rows = pixels.reshape(pixels.shape[0], -1)
    step = rows.shape[1] // pixels.shape[1]
    strips = list(_threads.map(lambda bounds: _write_strip(rows, step, *bounds), _divide(*rows.shape)))
    sum_of_all = 1
    for filtered, _ in strips:
        sum_of_all = zlib.adler32(filtered, sum_of_all)
    return _ZLIB_HEADER + b"".join(written for _, written in strips) + struct.pack(">I", sum_of_all)


def _divide(height: int, width: int) -> Iterator[tuple[int, int]]:
    """The first row of each strip, and the first behind it."""
    number = max(1, min(MAX_STRIPS, height, height * width // MIN_STRIP_BYTES))
    ends = [height * strip // number for strip in range(number + 1)]
    yield from pairwise(ends)


def _write_strip(rows: Bytes, step: int, first: int, end: int) -> tuple[bytes, bytes]:
    """The strip's filtered rows, and their part of the stream, which ends at a whole byte.

    Args:
        step: bytes of a pixel.
    """
    filtered = filter_rows(rows[first:end], rows[first - 1] if first else None, step).tobytes()
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -_WINDOW_BITS)
    last = end == len(rows)
    return filtered, deflate.compress(filtered) + deflate.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


def filter_rows(rows: Bytes, before: Bytes | None, step: int) -> Bytes:
    """Each row less its Paeth prediction (RFC 2083, 6.6), behind a byte that says so.

    Args:
        rows: (rows, bytes).
        before: the row above the first; None for none.
        step: bytes of a pixel.
    """
    height, width = rows.shape
    known = np.zeros((height + 1, width + step), np.int16)  # with what stands left of and above the rows
    known[1:, step:] = rows
    if before is not None:
        known[0, step:] = before
    left, above, corner = known[1:, :-step], known[:-1, step:], known[:-1, :-step]
    by_left, by_above = above - corner, left - corner  # how far the prediction would be from left, and from above
    by_corner = by_left + by_above
    for distance in (by_left, by_above, by_corner):
        np.abs(distance, out=distance)
    predicted = above + (corner - above) * (by_above > by_corner)  # a choice by arithmetic takes a fifth of np.where
    np.minimum(by_above, by_corner, out=by_above)
    predicted += (left - predicted) * (by_left <= by_above)
    filtered = np.empty((height, width + 1), np.uint8)
    filtered[:, 0] = _PAETH
    np.subtract(rows, predicted.astype(np.uint8), out=filtered[:, 1:])
    return filtered
