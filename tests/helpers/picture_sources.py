"""Picture files to name in a request, by hand where no library writes such, and a web host to load them from."""

import base64
import contextlib
import io
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from worker.errors import InvalidInputError
from worker.images.load import PictureRules, read_picture

Answer = Callable[[BaseHTTPRequestHandler], None]


def base64_of(data: bytes) -> str:
    """As a job may send it."""
    return base64.b64encode(data).decode()


def refused(reference: str, rules: PictureRules | None = None) -> str:
    """What the caller is told of a picture that cannot be had; fails when it can."""
    with pytest.raises(InvalidInputError) as caught:
        read_picture("controlnet.0.image", reference, rules or PictureRules())
    told = str(caught.value)
    assert told.startswith("controlnet.0.image: got ") and "\n" not in told and len(told) < 400
    return told


def file_of(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The picture as a file of this format; `options` are those of Pillow's `save`."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """48x32: red, green, blue and white quarters, from the upper left, row by row."""
    image = Image.new("RGB", (48, 32), "white")
    for colour, place in (("red", (0, 0, 24, 16)), ("lime", (24, 0, 48, 16)), ("blue", (0, 16, 24, 32))):
        image.paste(colour, place)
    return image


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG of these unfiltered rows, each with its filter byte before it; `extra` chunks stand before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of ISO/IEC 14496-12, of which an AVIF is made."""
    data = b"".join(content)
    return struct.pack(">I4s", len(data) + 8, kind) + data


def avif(
    *streams: bytes,
    told: tuple[int, int] = (64, 64),
    spare: bytes = b"",
    more: bytes = b"",
    extents: int = 1,
    shared: bool = False,
) -> bytes:
    """An AVIF of these AV1 streams, each an item; the first is the picture.

    Args:
        told: width and height that the boxes tell.
        spare: boxes among the properties.
        more: boxes behind everything.
        extents: in how many pieces each stream is said to be, all but the first of one byte.
        shared: whether all items are said to have the first stream.
    """
    count = len(streams)
    kinds = [box(b"infe", struct.pack(">IHH4sB", 2 << 24, number + 1, 0, b"av01", 0)) for number in range(count)]
    properties = box(b"ipco", box(b"ispe", struct.pack(">III", 0, *told)), box(b"av1C", b"\x81\0\x0c\0"), spare)
    uses = b"".join(struct.pack(">HBBB", number + 1, 2, 1, 2 | 128) for number in range(count))
    parts = [
        box(b"hdlr", struct.pack(">II4s12sB", 0, 0, b"pict", bytes(12), 0)),
        box(b"pitm", struct.pack(">IH", 0, 1)),
        box(b"iinf", struct.pack(">IH", 0, count), *kinds),
        box(b"iprp", properties, box(b"ipma", struct.pack(">II", 0, count), uses)),
    ]
    head = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    entry = 6 + 8 * extents
    start = len(head) + 12 + sum(map(len, parts)) + 16 + entry * count + 8
    places = []
    for number, stream in enumerate(streams):
        places.append(struct.pack(">HHH", number + 1, 0, extents))
        at = start + (0 if shared else sum(map(len, streams[:number])))
        places += [struct.pack(">II", at, len(stream)), *[struct.pack(">II", at, 1)] * (extents - 1)]
    iloc = box(b"iloc", struct.pack(">IBBH", 0, 0x44, 0, count), *places)
    return head + box(b"meta", bytes(4), *parts, iloc) + box(b"mdat", *streams[: 1 if shared else None]) + more


def stream_of(image: Image.Image) -> bytes:
    """The AV1 stream of a picture, as an AVIF holds it."""
    data = file_of(image, "AVIF", speed=10)
    return data[data.index(b"mdat") + 4 :]


def answer(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer with this body; `headers` with underscores for dashes."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return send


def drip(before: bytes, drop: bytes) -> Answer:
    """An answer that begins with `before` and then goes on for ten seconds, a drop at a time."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(before)
        for _ in range(200):
            request.wfile.write(drop)
            time.sleep(0.05)

    return send


class Host(ThreadingHTTPServer):
    """A web host on this machine that answers every GET in one way and keeps the paths it was asked for."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Request)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def url(self, path: str = "/picture", host: str = "127.0.0.1") -> str:
        """A URL of this host, which may go by another name."""
        return f"http://{host}:{self.port}{path}"


class _Request(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers))
        with contextlib.suppress(ConnectionError):  # the worker may have heard enough
            self.server.answer(self)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def hosting(answer: Answer) -> Iterator[Host]:
    """A host for the length of a test."""
    host = Host(answer)
    threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
