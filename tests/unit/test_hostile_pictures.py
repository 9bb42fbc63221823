"""A picture that would harm, hang or fill the worker, or is none, is refused in one clear sentence."""

import io
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from runpod.serverless.utils import rp_ssrf  # noqa: F401  imported here, before any deadline runs

from tests.helpers.asking import ask, model_of, picture, refusal
from tests.helpers.fuzzing import examples
from tests.helpers.picture_sources import avif, base64_of, box, chunk, corners, file_of, png, refused, stream_of
from worker.errors import InvalidInputError, UnusablePictureError
from worker.images.guard import MEASURED_WITH, count_hidden_pixels, count_scans
from worker.images.load import PictureRules, read_parameters, read_picture

ROOT = Path(__file__).parents[2]
RULES = PictureRules()
GOOD = {format: file_of(corners(), format) for format in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")}


# What stands on the network volume


def _pipe(path: Path) -> None:
    os.mkfifo(path)


HOSTILE_FILES: dict[str, Callable[[Path], object]] = {
    "out.png": lambda path: path.symlink_to("../secret.png"),
    "etc.png": lambda path: path.symlink_to("/etc/passwd"),
    "loop.png": lambda path: path.symlink_to("loop.png"),
    "up": lambda path: path.symlink_to(".."),
    "pipe.png": _pipe,
    "zero.png": lambda path: path.symlink_to("/dev/zero"),
    "folder.png": lambda path: path.mkdir(),
    "socket.png": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with hostile files on it, and pictures beside it that no job may have."""
    volume = tmp_path / "v"
    for folder in (volume, tmp_path / "v-other"):
        folder.mkdir()
        (folder / "secret.png").write_bytes(GOOD["PNG"])
    (tmp_path / "secret.png").write_bytes(GOOD["PNG"])
    (volume / "secret.png").unlink()
    for name, make in HOSTILE_FILES.items():
        make(volume / name)
    return volume


@pytest.mark.parametrize(
    "path",
    [*HOSTILE_FILES, "missing.png", "", ".", "../secret.png", "up/secret.png", "../v-other/secret.png", "a\0b.png",
     "folder.png/../../secret.png", "//etc/passwd", "\ud800.png", "x" * 300, "x/" * 3_000, "../../../../dev/zero"],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("before", ["{volume}/", "volume:"])
def test_only_pictures_below_the_volume(volume: Path, before: str, path: str) -> None:
    start = time.monotonic()
    told = refused(before.format(volume=volume) + path, PictureRules(volume=volume))
    assert told.endswith(f"there is no such file below {volume}")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "reference", ["volume:{0}/secret.png", "{0}/secret.png", "{0}/v-other/secret.png", "v/out.png"]
)
def test_no_path_elsewhere(volume: Path, reference: str) -> None:
    refused(reference.format(volume.parent), PictureRules(volume=volume))


def test_a_file_is_not_read_beyond_the_limit(volume: Path) -> None:
    with (volume / "big.png").open("wb") as file:
        file.truncate(10**12)
    assert "at most 1000 bytes" in refused("volume:big.png", PictureRules(volume=volume, max_bytes=1_000))


def test_a_worker_without_a_volume(tmp_path: Path) -> None:
    assert "no such file" in refused("volume:a.png", PictureRules(volume=tmp_path / "none"))


# What is no picture, or one that would do harm


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
STRANGERS = {
    "nothing": b"",
    "text": b"a red square",
    "svg": SVG,
    "html": b"<html>",
    "icon": file_of(corners(), "ICO"),
    "jpeg 2000": file_of(corners(), "JPEG2000"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "png of no size": png(0, 0, 8, 2, b""),
    "png of no height": png(4, 0, 8, 2, b""),
    "jpeg of no size": GOOD["JPEG"].replace(b"\0\x20\0\x30\x03", b"\0\0\0\0\x03"),
    "only a head": b"\x89PNG\r\n\x1a\n",
    "gif without a frame": b"GIF89a\1\0\1\0\0\0\0;",
    "bmp of no size": GOOD["BMP"].replace(struct.pack("<II", 48, 32), bytes(8)),
    "device-independent bitmap": GOOD["BMP"][14:],
    "tiff without a directory": GOOD["TIFF"][:8],
    "wrong checksum": GOOD["PNG"].replace(b"\0\0\0\x30\0\0\0\x20", b"\0\0\0\x31\0\0\0\x20"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("data", STRANGERS.values(), ids=list(STRANGERS))
def test_only_formats_that_are_listed(data: bytes) -> None:
    told = refused(f"data:image/png;base64,{base64_of(data)}")
    assert told.endswith("that is no PNG, JPEG, WEBP, AVIF, GIF, BMP or TIFF picture")


def _packed(tag: int, number: int) -> bytes:
    """A TIFF whose entry of this tag holds this number."""
    data = bytearray(GOOD["TIFF"])
    directory = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[directory : directory + 2], "little")
    entries = [directory + 2 + 12 * i for i in range(count)]
    (place,) = [place for place in entries if int.from_bytes(data[place : place + 2], "little") == tag]
    data[place + 8 : place + 10] = number.to_bytes(2, "little")
    return bytes(data)


HEIC = box(b"ftyp", b"heic", bytes(4), b"mif1heic") + box(b"meta", bytes(4))
SEQUENCE = file_of(corners(), "AVIF", save_all=True, append_images=[Image.new("RGB", (48, 32))])
# What is of a format that is read, in a kind that is not.
OTHER_KINDS = {
    "heic": (HEIC, "save it as JPEG"),
    "avif sequence": (SEQUENCE, "a sequence of pictures; a still one is needed"),
    "bmp by run lengths": (GOOD["BMP"][:30] + b"\1" + GOOD["BMP"][31:], "a BMP with run-length encoding is not read"),
    "bmp of run lengths, 4 bits": (GOOD["BMP"][:30] + b"\2" + GOOD["BMP"][31:], "with run-length encoding"),
    **{f"tiff packed as {kind}": (_packed(259, kind), "packed in a way that is not read") for kind in (2, 6, 7, 50001)},
    "tiff that tells its packing elsewhere": (
        _packed(259, 8).replace(struct.pack("<HHI", 259, 3, 1), struct.pack("<HHI", 259, 16, 1)),
        "packed in a way that is not read",
    ),
    "big tiff": (b"II+\0\x08\0\0\0" + bytes(99), "a TIFF of that kind is not read"),
    "tiff of floats": (file_of(Image.new("F", (8, 8)), "TIFF"), "numbers of 32 bits are no colours"),
}


@pytest.mark.parametrize(("data", "why"), OTHER_KINDS.values(), ids=list(OTHER_KINDS))
def test_a_kind_of_a_format_that_is_not_read_is_named(data: bytes, why: str) -> None:
    assert why in refused(base64_of(data))


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("", "no PNG"),
        ("=", "no PNG"),
        ("A", "neither a URL"),
        ("%%%", "neither a URL"),
        ("hello world!", "neither a URL"),
        ("AAAA!AAAA", "neither a URL"),
        ("é", "neither a URL"),
        ("C:/a.png", "neither a URL"),
        ("/etc/passwd", "no PNG"),  # base64, to the letter
        ("/runpod-volume-of-others/a.png", "neither a URL"),
        ("data:", "a data URI starts with"),
        ("data:,x", "a data URI starts with"),
        ("data:image/png,iVBORw0KGgo", "a data URI starts with"),
    ],
)
def test_text_that_is_no_reference(reference: str, why: str) -> None:
    assert why in refused(reference)


def test_what_came_is_not_repeated() -> None:
    for reference in (base64_of(GOOD["PNG"][:-60]), f"data:;base64,{base64_of(GOOD['PNG'][:-60])}"):
        told = refused(reference)
        assert reference[30:60] not in told and str(len(reference)) in told


@pytest.mark.parametrize("format", GOOD)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_a_picture_that_is_cut_short(format: str, share: float) -> None:
    data = file_of(corners().resize((480, 320)), format)
    refused(base64_of(data[: int(len(data) * share)]))


@pytest.mark.parametrize("format", [format for format in GOOD if format != "AVIF"])  # which is boxes to its end
def test_a_page_behind_a_picture_is_just_not_read(format: str) -> None:
    data = GOOD[format] + b"<html><script>alert(1)</script></html>"
    assert read_picture("image", base64_of(data), RULES).size == (48, 32)


@pytest.mark.parametrize(
    ("size", "limit"),
    [((49, 32), 48 * 32), ((16_385, 1), 50_000_000), ((1, 50_000), 10**6), ((8_000, 8_000), 50_000_000)],
)
def test_too_many_pixels(size: tuple[int, int], limit: int) -> None:
    rules = PictureRules(max_pixels=limit)
    told = refused(base64_of(file_of(Image.new("1", size))), rules)
    assert f"{size[0]}x{size[1]} is more" in told and str(limit) in told and "16384 on a side" in told


def test_more_pixels_than_the_codec_itself_opens() -> None:
    assert "at most 50000000 pixels" in refused(base64_of(png(16_000, 16_000, 8, 2, b"")))


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("count", [10_001, 10_000_000])
def test_too_many_bytes_ofbase64_of(before: str, count: int) -> None:
    assert "at most 10000 bytes" in refused(before + base64_of(bytes(count)), PictureRules(max_bytes=10_000))


def test_a_flood_of_spaces() -> None:
    assert "at most 10000 bytes" in refused(f"AAAA{' ' * 100_000}AAAA", PictureRules(max_bytes=10_000))


def _bomb_png() -> bytes:
    """12,000 x 12,000 pixels in 140 KB: 432 MB once decoded."""
    return png(12_000, 12_000, 8, 0, bytes(12_001 * 12_000))


def _webp_bomb() -> bytes:
    """A header that speaks of 16,384 x 16,384 pixels with alpha."""
    frame = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14 | 1 << 28) + bytes(5)
    return b"RIFF" + struct.pack("<I", len(frame) + 4) + b"WEBP" + frame


def _png_with(kind: bytes, before: bytes, size: int) -> bytes:
    return png(1, 1, 8, 2, b"\0\1\2\3", chunk(kind, before + zlib.compress(bytes(size), 9)))


def _jpeg_of_many_passes() -> bytes:
    """A progressive JPEG whose last pass stands there 20,000 times."""
    data = file_of(Image.new("RGB", (4_000, 3_000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 20_000 + data[-2:]


RED = stream_of(Image.new("RGB", (64, 64), "red"))
# A frame that shows nothing new: a header that tells to show what is there, 100,000 times.
FLAT_FRAMES = RED + RED[RED.index(b"\x32") :] * 5_000


def _gif_of(screen: tuple[int, int], frame: tuple[int, int], extra: bytes = b"") -> bytes:
    """A GIF whose first frame has another size than its screen, and is to be disposed of."""
    control = b"!\xf9\4\x08\0\0\0\0"
    image = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x4c\1\0;"
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0) + extra + control + image


def _bmp_of(width: int, height: int) -> bytes:
    return GOOD["BMP"].replace(struct.pack("<II", 48, 32), struct.pack("<II", width, height))


BOMBS = {
    "gif screen": lambda: _gif_of((60_000, 60_000), (1, 1)),
    "gif frame": lambda: _gif_of((1, 1), (12_000, 12_000)),
    "bmp": lambda: _bmp_of(12_000, 12_000),
    "tiff": lambda: _packed(256, 60_000).replace(b"\x20\0\0\0", b"\x60\xea\0\0"),
    "avif that tells it": lambda: avif(RED, told=(16_000, 16_000)),
    "avif that tells less": lambda: avif(RED, told=(8, 8)),
    "avif of many pictures": lambda: avif(*[RED] * 900, told=(7_000, 7_000)),
    "avif of hidden frames": lambda: avif(FLAT_FRAMES, told=(7_000, 7_000)),
    "avif whose pictures share their data": lambda: avif(*[RED + b"\x7a\xff\x7f" + bytes(16_383)] * 500, shared=True),
    "pixels": _bomb_png,
    "webp": _webp_bomb,
    "colour profile": lambda: _png_with(b"iCCP", b"x\0\0", 50_000_000),
    "text": lambda: _png_with(b"zTXt", b"parameters\0\0", 50_000_000),
    "international text": lambda: _png_with(b"iTXt", b"parameters\0\1\0\0\0", 50_000_000),
    "jpeg passes": _jpeg_of_many_passes,
}
WEIGHED = """
import resource, sys, time
from worker.errors import InvalidInputError
from worker.images.load import PictureRules, read_parameters, read_picture
text = sys.stdin.read()
try:
    read_picture("image", "iVBORw0KGgo=", PictureRules())  # what Pillow loads once does not count
except InvalidInputError:
    pass
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for read in (read_picture, read_parameters):
    try:
        read("image", text, PictureRules())
        print("accepted")
    except InvalidInputError as error:
        print("refused", len(str(error)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, round(time.process_time() - start, 1))
"""


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_a_bomb_takes_little_memory_and_time(bomb: Callable[[], bytes]) -> None:
    text = base64_of(bomb())
    done = subprocess.run(
        [sys.executable, "-c", WEIGHED], cwd=ROOT, input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *outcomes, figures = done.stdout.splitlines()
    megabytes, seconds = map(float, figures.split())
    assert [outcome.split()[0] for outcome in outcomes] == ["refused", "refused"]
    assert megabytes < 30 and seconds < 3


def _png_of(extra: bytes) -> bytes:
    return png(1, 1, 8, 2, b"\0\1\2\3", extra)


def _before_the_end(data: bytes, length: int, extra: bytes) -> bytes:
    return data[:-length] + extra + data[-length:]


def _jpeg_of(extra: bytes) -> bytes:
    """With this behind the marker that it starts with."""
    return GOOD["JPEG"][:2] + extra + GOOD["JPEG"][2:]


def _segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 255, kind, len(data) + 2) + data


def _webp_of(extra: bytes) -> bytes:
    data = file_of(corners(), "WEBP", exif=b"Exif\0\0MM")
    return b"RIFF" + struct.pack("<I", len(data) - 8 + len(extra)) + data[8:] + extra


def _frame(components: int) -> bytes:
    return _segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 3) + bytes(3 * components))


RESOURCES = b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 5_000
INFLATED = zlib.compress(bytes(1_000_000), 9)
PROGRESSIVE = file_of(corners(), "JPEG", progressive=True)
# How a file of so many parts is made, and a number of them that is too many.
MANY_PARTS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "png chunks": (lambda n: _png_of(chunk(b"aaAa", b"") * n), 60_000),
    "png chunks behind the pixels": (lambda n: _before_the_end(_png_of(b""), 12, chunk(b"aaAa", b"") * n), 60_000),
    "png texts": (lambda n: _png_of(chunk(b"tEXt", b"a\0") * n), 60_000),
    "png pixel chunks": (lambda n: _before_the_end(_png_of(b""), 12, chunk(b"IDAT", b"") * n), 60_000),
    "png colour profiles": (lambda n: _png_of(chunk(b"iCCP", b"x\0\0" + INFLATED) * n), 60),
    "png texts with a wrong end": (lambda n: _png_of(chunk(b"zTXt", b"x\0\0" + INFLATED[:-4] + b"xxxx") * n), 60),
    "jpeg comments": (lambda n: _jpeg_of(_segment(0xFE, b"") * n), 2_000),
    "jpeg segments of applications": (lambda n: _jpeg_of(_segment(0xE3, b"") * n), 2_000),
    "jpeg segments of a length below two": (lambda n: _jpeg_of(b"\xff\xe3\0\0" * n), 2_000),
    "jpeg exif": (lambda n: _jpeg_of(_segment(0xE1, b"Exif\0\0" + bytes(90)) * n), 100),
    "jpeg tables": (lambda n: _jpeg_of(_segment(0xDB, b"") * n), 2_000),
    "jpeg tables in few segments": (lambda n: _jpeg_of(_segment(0xDB, bytes(65 * 1_000)) * n), 4),
    "jpeg frames": (lambda n: _jpeg_of(_frame(20_000) * n), 4),
    "jpeg resources": (lambda n: _jpeg_of(_segment(0xED, RESOURCES) * n), 12),
    "jpeg restarts": (lambda n: _jpeg_of(b"\xff\xd0" * n), 2_000),
    "jpeg fill bytes": (lambda n: _jpeg_of(b"\xff" * n), 60_000),
    "jpeg fill bytes in pieces": (lambda n: _jpeg_of((b"\xff" * 4_000 + _segment(0xFE, b"")) * n), 20),
    "jpeg bytes between segments": (lambda n: _jpeg_of(b"\xff\xf0" + bytes(n)), 60_000),
    "jpeg of nothing else": (lambda n: b"\xff\xd8" + b"\xff" * n, 60_000),
    "jpeg segments behind a scan": (lambda n: _before_the_end(PROGRESSIVE, 2, _segment(0xFE, b"") * n), 2_000),
    "webp chunks": (lambda n: _webp_of(b"abcd" + bytes(4) + (b"abcd\1\0\0\0x\0") * n), 60_000),
}


def _tiff_of(n: int, offset: int = 8) -> bytes:
    """A TIFF of so many strips, each of the same place."""
    kinds = [(256, 4, 1, 8), (257, 4, 1, n), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    kinds += [(273, 4, n, 128), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, n, 128)]
    entries = [struct.pack("<HHII", *kind) for kind in kinds]
    head = b"II*\0" + struct.pack("<IH", 8, len(kinds)) + b"".join(entries) + bytes(4)
    return head.ljust(128, b"\0") + struct.pack("<I", offset) * n


ENTRIES = b"".join(struct.pack("<HHII", tag, 3, 1, 0) for tag in range(60_000))


def _tiff_with_a_directory(n: int) -> bytes:
    """A TIFF with an EXIF directory of so many entries."""
    data = bytearray(_tiff_of(1))
    data[8:10] = (10).to_bytes(2, "little")
    data[10 + 12 * 9 : 10 + 12 * 10] = struct.pack("<HHII", 34665, 4, 1, 200)
    return bytes(data).ljust(200, b"\0") + struct.pack("<H", n) + ENTRIES[: 12 * n] + bytes(4)


MANY_PARTS |= {
    "gif comments": (lambda n: _gif_of((1, 1), (1, 1), b"!\xfe" + b"\1x" * n + b"\0"), 60_000),
    "gif extensions": (lambda n: _gif_of((1, 1), (1, 1), b"!\xfe\1x\0" * n), 30_000),
    "gif blocks behind an empty one": (lambda n: _gif_of((1, 1), (1, 1), b"!\xf9\0" + b"," * 45 * n), 60_000),
    "gif blocks behind a loop": (
        lambda n: _gif_of((1, 1), (1, 1), b"!\xff\x0cNETSCAPE2.0x\0" + b"," * 45 * n),
        60_000,
    ),
    "gif bytes that begin nothing": (lambda n: _gif_of((1, 1), (1, 1), b"\0" * n), 60_000),
    "tiff strips": (_tiff_of, 30_000),
    "tiff exif": (_tiff_with_a_directory, 60_000),
    "avif items": (lambda n: avif(*[RED] * n), 3_000),
    "avif extents": (lambda n: avif(RED, extents=n), 6_000),
    "avif properties": (lambda n: avif(RED, spare=box(b"colr") * n), 6_000),
    "avif boxes": (lambda n: avif(RED, more=box(b"free") * n), 6_000),
    "avif units": (lambda n: avif(RED + b"\x7a\0" * n), 6_000),
}
MANY = pytest.mark.parametrize(("make", "too_many"), MANY_PARTS.values(), ids=list(MANY_PARTS))


@MANY
def test_a_file_of_nothing_but_parts_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[int], bytes], too_many: int
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    text = base64_of(make(too_many))
    assert refused(text).endswith("the file is made of too many parts")
    with pytest.raises(InvalidInputError, match="too many parts"):
        read_parameters("replay", text, RULES)


def _has_too_many_parts(data: bytes) -> bool:
    try:
        count_scans(data)
        count_hidden_pixels(data)
    except UnusablePictureError:
        return True
    return False


def _seconds(work: Callable[[], object]) -> float:
    """Of this thread's own work, so that nobody else's counts."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def _walk(data: bytes) -> None:
    """Read a PNG's chunks as plainly as Python can."""
    stream = io.BytesIO(data[8:])
    while head := stream.read(8):
        zlib.crc32(stream.read(int.from_bytes(head[:4])))
        stream.read(4)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@MANY
def test_a_file_of_just_not_too_many_parts_opens_soon(make: Callable[[int], bytes], too_many: int) -> None:
    """Soon is measured by what plain Python needs for as many chunks, on the same machine in the same moment."""
    count = bisect_left(range(too_many + 1), True, key=lambda n: _has_too_many_parts(make(n))) - 1
    text = base64_of(make(count))
    usual = _seconds(lambda: _walk(_png_of(chunk(b"aaAa", b"") * 50_000)))
    times = _seconds(lambda: _refused_or_read(text, RULES)) / usual
    print(f"{count} parts: {times:.1f}")
    assert times < 80, f"Pillow {PIL.__version__} takes longer for such parts than worker/images/guard.py counts"


def test_parts_weigh_what_they_cost_the_installed_pillow() -> None:
    assert PIL.__version__ == MEASURED_WITH, (
        f"worker/images/guard.py weighs the parts of a file by what Pillow {MEASURED_WITH} does with them. Read what "
        f"is new in {PIL.__version__}, run `pytest -sk just_not_too_many tests/unit/test_hostile_pictures.py` with "
        "both, give a part that has become dearer a higher cost there, and then set MEASURED_WITH"
    )


def test_scans_between_other_segments_are_counted() -> None:
    data = file_of(Image.new("RGB", (4_000, 3_000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    passes = (b"\xff\xff" + _segment(0xFE, b"\xff\xd9") + b"\xff\xd0\xff\0" + last) * 150
    assert "too many passes" in refused(base64_of(data[:-2] + passes + data[-2:]))


WARNING = """
import sys, threading, PIL.TiffImagePlugin
from worker.images.load import PictureRules, read_parameters, read_picture
text = sys.stdin.read()
for read in (read_picture, read_parameters):
    thread = threading.Thread(target=read, args=("image", text, PictureRules()))
    thread.start()
    thread.join()
print({*getattr(PIL.TiffImagePlugin, "__warningregistry__", {})} - {"version"})
"""


def test_exif_does_not_flood_what_the_worker_says() -> None:
    entries = b"".join(struct.pack(">HHLL", tag, 7, 900_000, 8) for tag in range(2, 1_000))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 998) + entries + bytes(4)
    text = base64_of(_png_of(chunk(b"eXIf", exif)))
    done = subprocess.run(
        [sys.executable, "-c", WARNING], cwd=ROOT, input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


ADAPTED = model_of("sd1", ip_adapter=True)


@pytest.mark.parametrize("size", [(1, 1_000), (1_000, 1), (10, 161)])
def test_a_sliver_for_the_image_encoder(size: tuple[int, int]) -> None:
    """Its processor would scale the shorter side to 224 pixels and the longer one with it."""
    told = refusal(ADAPTED, ip_adapter={"image": picture(*size)})
    assert told == f"ip_adapter.image: got {size[0]}x{size[1]}; one side may be at most 16 times the other"


def test_what_the_image_encoder_takes() -> None:
    assert ask(ADAPTED, ip_adapter={"image": picture(10, 160)}).image_prompt


@pytest.mark.parametrize("key", [b"transparency", b"exif", b"icc_profile", b"dpi", b"interlace", b"XML:com.adobe.xmp"])
def test_a_text_that_goes_by_the_name_of_something_else(key: bytes) -> None:
    data = png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"tEXt", key + b"\0canary"))
    _refused_or_read(base64_of(data), RULES)


def _refused_or_read(reference: str, rules: PictureRules) -> None:
    for read in (read_picture, read_parameters):
        try:
            found = read("image", reference, rules)
        except InvalidInputError as error:
            str(error).encode()
            continue
        if isinstance(found, Image.Image):
            assert found.mode in ("RGB", "RGBA") and len(found.tobytes()) == found.width * found.height * len(
                found.mode
            )


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, cut out or put in, its PNG checksums made good again half of the time."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 6))):
        place, cut = draw(st.integers(0, len(data))), draw(st.integers(0, 4))
        data[place : place + cut] = draw(st.binary(max_size=4))
    return _with_checksums(bytes(data)) if draw(st.booleans()) else bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """The same PNG, as far as it is one, with the checksum that each chunk should have."""
    mended, place = data[:8], 8
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        mended += chunk(data[place + 4 : place + 8], data[place + 8 : end])
        place = end + 4
    return mended if place > 8 else data


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0a red square"
    return exif


FILES = [
    *GOOD.values(),
    file_of(corners().quantize(4), transparency=b"\x07" * 4),
    file_of(corners(), "JPEG", progressive=True, exif=_exif(), comment="x", icc_profile=bytes(99)),
    file_of(corners(), "MPO", save_all=True, append_images=[corners()]),
    file_of(corners(), "WEBP", lossless=True, exif=_exif(), icc_profile=bytes(99)),
    file_of(corners().convert("CMYK"), "JPEG"),
    file_of(corners(), "AVIF", exif=_exif()),
    file_of(corners().quantize(4), "GIF", save_all=True, append_images=[corners()], comment=b"x", transparency=0),
    file_of(corners(), "TIFF", compression="tiff_lzw", exif=_exif()),
    file_of(corners().convert("I;16"), "TIFF"),
    SEQUENCE,
]


@pytest.mark.filterwarnings("ignore")
@examples(200)
@given(_damaged() | st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_refused(data: bytes) -> None:
    _refused_or_read(base64_of(data), RULES)


@examples(100)
@given(
    st.text(st.characters(), max_size=60),
    st.sampled_from(["", "data:", "data:;base64,", "volume:", "/runpod-volume/", "file:"]),
)
def test_any_text_is_a_picture_or_refused(text: str, before: str) -> None:
    _refused_or_read(before + text, RULES)
