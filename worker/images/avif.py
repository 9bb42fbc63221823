"""How many pixels have to be decoded for an AVIF, told by its boxes and by the AV1 streams in it; nothing is decoded.

libavif holds the size that the boxes tell against its limit, and meets the size that a stream tells for itself only
while it decodes. So a small picture may hide large ones, many of them, or frames that are never shown.
Box names are those of ISO/IEC 14496-12 and 23008-12, `obu` is AV1's unit of data (AV1 specification, section 5.3).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from worker.errors import UnusablePictureError

_PART = 10  # what a box, an item or a unit costs, which libavif looks up one by one
_SEQUENCE_HEADER, _FRAMES = 1, (3, 6)  # types of OBUs
_HEADER_BYTES = 64  # a sequence header's size stands in its first bits


@dataclass
class _Meta:
    """What the boxes say of the pictures inside.

    Attributes:
        kinds: item -> what it is, as four letters.
        extents: item -> where its data are, from and up to.
        sizes: the pixels that a property tells, in the order of properties; 0 for other ones.
        properties: item -> the numbers of its properties, from 1.
    """

    kinds: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    properties: dict[int, list[int]] = field(default_factory=dict)


def is_avif(data: bytes) -> bool:
    """Whether Pillow would hand the file to libavif, or whether it is of that family."""
    return data[4:8] == b"ftyp"


def count_decoded_pixels(data: bytes, spend: Callable[[int], None]) -> int:
    """The pixels of every picture and frame in the file, shown or not.

    Args:
        spend: is told what each part costs; what it raises ends it.

    Raises:
        UnusablePictureError: the file is a sequence, or its boxes are not in order.
    """
    try:
        meta = _read_meta(data, spend)
        if sum(end - start for places in meta.extents.values() for start, end in places) > len(data):
            raise ValueError("data are used more than once")
        return sum(_count_item(data, item, meta, spend) for item, kind in meta.kinds.items() if kind == b"av01")
    except (ValueError, IndexError, KeyError, struct.error):
        raise UnusablePictureError("the picture's data are broken or cut short") from None


def _boxes(data: bytes, start: int, end: int, spend: Callable[[int], None]) -> Iterator[tuple[bytes, int, int]]:
    """Each box from here to there: its type, and where its content is."""
    while start < end:
        spend(_PART)
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + size if size else end
        if not content <= stop <= end:
            raise ValueError("a box is longer than what holds it")
        yield kind, content, stop
        start = stop


def _read_meta(data: bytes, spend: Callable[[int], None]) -> _Meta:
    top = list(_boxes(data, 0, len(data), spend))
    if any(kind in (b"moov", b"mini") for kind, _, _ in top):
        raise UnusablePictureError("the AVIF is a sequence of pictures; a still one is needed")
    ((start, end),) = [(start, end) for kind, start, end in top if kind == b"meta"]
    inner = {kind: (start, end) for kind, start, end in _boxes(data, start + 4, end, spend)}
    meta = _Meta(kinds=dict(_read_kinds(data, *inner[b"iinf"], spend)))
    meta.extents = dict(_read_places(data, inner[b"iloc"][0], inner.get(b"idat", (0, 0))[0], spend))
    for kind, start, end in _boxes(data, *inner[b"iprp"], spend):
        if kind == b"ipco":
            meta.sizes += [_read_size(data, *box) for box in _boxes(data, start, end, spend)]
        elif kind == b"ipma":
            meta.properties |= dict(_read_properties(data, start, spend))
    return meta


def _read_kinds(data: bytes, start: int, end: int, spend: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """Each item, and what it is."""
    for kind, place, _ in _boxes(data, start + (6 if data[start] == 0 else 8), end, spend):
        if kind != b"infe" or data[place] not in (2, 3):
            raise ValueError("an item of no kind")
        wide = data[place] == 3
        item = int.from_bytes(data[place + 4 : place + (8 if wide else 6)])
        yield item, data[place + (10 if wide else 8) :][:4]


class _Reader:
    """Numbers one after the other."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def read(self, size: int) -> int:
        """The number in the next bytes."""
        if self.place + size > len(self.data):
            raise ValueError("ends too soon")
        self.place += size
        return int.from_bytes(self.data[self.place - size : self.place])


def _read_places(
    data: bytes, start: int, idat: int, spend: Callable[[int], None]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Each item, and where its data are."""
    version, reader = data[start], _Reader(data, start + 4)
    sizes = reader.read(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(reader.read(4 if version == 2 else 2)):
        item = reader.read(4 if version == 2 else 2)
        inside = version > 0 and reader.read(2) & 15 == 1
        reader.read(2)
        base, places = reader.read(base_size) + (idat if inside else 0), []
        for _ in range(reader.read(2)):
            spend(_PART)
            reader.read(index_size if version > 0 else 0)
            offset, length = reader.read(offset_size) + base, reader.read(length_size)
            places.append((offset, offset + length if length else len(data)))
        spend(_PART)
        yield item, places


def _read_properties(data: bytes, start: int, spend: Callable[[int], None]) -> Iterator[tuple[int, list[int]]]:
    """Each item, and the numbers of its properties."""
    version, wide, reader = data[start], data[start + 3] & 1, _Reader(data, start + 4)
    for _ in range(reader.read(4)):
        spend(_PART)
        item, count = reader.read(4 if version else 2), reader.read(1)
        yield item, [reader.read(2) & 0x7FFF if wide else reader.read(1) & 0x7F for _ in range(count)]


def _read_size(data: bytes, kind: bytes, start: int, end: int) -> int:
    width, height = struct.unpack_from(">II", data, start + 4) if kind == b"ispe" else (0, 0)
    return int(width * height)


def _count_item(data: bytes, item: int, meta: _Meta, spend: Callable[[int], None]) -> int:
    """The pixels of all frames of one picture."""
    stream = b"".join(data[start:end] for start, end in meta.extents[item])
    told = max((meta.sizes[number - 1] for number in meta.properties.get(item, []) if number), default=0)
    frames = 0
    for kind, payload in _obus(stream, spend):
        if kind == _SEQUENCE_HEADER and _read_frame_size(payload) > told:
            raise UnusablePictureError("the AVIF tells two sizes for one picture")
        frames += kind in _FRAMES
    return told * max(1, frames)


def _obus(stream: bytes, spend: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """The type of each OBU, and its first bytes."""
    place = 0
    while place < len(stream):
        spend(_PART)
        head = stream[place]
        place += 2 if head & 4 else 1
        size = len(stream) - place
        if head & 2:
            size, place = _read_leb128(stream, place)
        yield head >> 3 & 15, stream[place : place + min(size, _HEADER_BYTES)]
        place += size


def _read_leb128(stream: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for i in range(8):
        value |= (stream[place + i] & 127) << 7 * i
        if not stream[place + i] & 128:
            return value, place + i + 1
    raise ValueError("a number has no end")


def _read_frame_size(payload: bytes) -> int:
    """The most pixels that a frame may have by this sequence header (AV1 specification, section 5.5.1)."""
    bits = _Bits(payload)
    bits.read(4)  # profile and still_picture
    reduced = bits.read(1)
    if reduced:
        bits.read(5)
    else:
        _skip_operating_points(bits)
    counts = [bits.read(4) + 1, bits.read(4) + 1]
    width, height = (bits.read(count) for count in counts)
    # A frame may tell a size of its own, in so many bits; encoders take no more than they need.
    if not reduced and any(
        count > max(1, side.bit_length()) for count, side in zip(counts, (width, height), strict=True)
    ):
        raise UnusablePictureError("the AVIF leaves open how large its pictures are")
    return (width + 1) * (height + 1)


class _Bits:
    """Bits one after the other, the highest first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data), 8 * len(data)

    def read(self, count: int) -> int:
        """The number in the next bits."""
        self.left -= count
        if self.left < 0:
            raise ValueError("ends too soon")
        return self.value >> self.left & (1 << count) - 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing_info
        bits.read(64)
        if bits.read(1):
            _skip_uvlc(bits)
        if bits.read(1):  # decoder_model_info
            delay_bits = bits.read(5) + 1
            bits.read(42)
    delays = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if delays and bits.read(1):
            bits.read(4)


def _skip_uvlc(bits: _Bits) -> None:
    zeros = 0
    while not bits.read(1):
        zeros += 1
    bits.read(zeros if zeros < 32 else 0)
