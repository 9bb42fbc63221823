"""A picture that a job names comes out the same whichever way it is named: upright, in plain RGB or RGBA."""

import base64
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageCms

import worker.http
from tests.helpers.asking import SDXL, ask
from tests.helpers.picture_sources import answer, chunk, corners, file_of, hosting, png
from worker.images.load import PictureRules, read_parameters, read_picture
from worker.output.encode import encode
from worker.output.metadata import format_metadata
from worker.plan import make_plan

RULES = PictureRules()
RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(data: bytes, rules: PictureRules = RULES) -> Image.Image:
    return read_picture("image", _base64(data), rules)


def _pixels(image: Image.Image) -> list[Any]:
    return list(image.get_flattened_data())


@pytest.fixture
def this_machine_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests' own hosts be dialled, which stand where a job's URL must never lead."""
    monkeypatch.setattr(worker.http, "is_public", lambda ip: True)


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(_base64, id="base64"),
        pytest.param(lambda data: base64.b64encode(data).decode().rstrip("="), id="base64 without padding"),
        pytest.param(lambda data: base64.urlsafe_b64encode(data).decode(), id="url-safe base64"),
        pytest.param(lambda data: base64.encodebytes(data).decode(), id="base64 in lines"),
        pytest.param(lambda data: f"\n data:image/png;base64,{_base64(data)} \n", id="data URI between spaces"),
        pytest.param(lambda data: f"data:image/png;base64,{_base64(data)}", id="data URI"),
        pytest.param(lambda data: f"DATA:;base64,{_base64(data)}", id="data URI without a type"),
        pytest.param(lambda data: f"data:text/plain;charset=x;BASE64,{_base64(data)}", id="data URI of another type"),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_text_that_holds_a_picture(written: Callable[[bytes], str], format: str) -> None:
    data = file_of(corners(), format, lossless=True)
    assert _pixels(read_picture("image", written(data), RULES)) == _pixels(corners())


def test_base64_of_a_jpeg_is_no_path() -> None:
    data = _base64(file_of(corners(), "JPEG", quality=100))
    assert data.startswith("/9j/") and read_picture("image", data, RULES).size == (48, 32)


@pytest.mark.parametrize(
    "reference",
    ["{volume}/in/a.png", "volume:in/a.png", "volume:in/../in/a.png", "{volume}/link.png", "volume:way/a.png"],
)
def test_a_file_on_the_network_volume(tmp_path: Path, reference: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(file_of(corners()))
    (tmp_path / "link.png").symlink_to("in/a.png")
    (tmp_path / "way").symlink_to(tmp_path / "in")
    image = read_picture("image", reference.format(volume=tmp_path), PictureRules(volume=tmp_path))
    assert _pixels(image) == _pixels(corners())


@pytest.mark.usefixtures("this_machine_is_public")
class TestUrls:
    RULES = PictureRules(hosts=("127.0.0.1", "*.pictures.example"))

    def test_a_url(self) -> None:
        with hosting(answer(file_of(corners()))) as host:
            assert _pixels(read_picture("image", host.url(), self.RULES)) == _pixels(corners())
            assert host.headers[0]["User-Agent"] == "image-worker" and "Cookie" not in host.headers[0]

    @pytest.mark.parametrize("path", ["/a%2Fb%20c.png?sig=%2B+%3d%3D&x=a/b&y=%7E~", "/?", "/a;b=c:d@e/(f)'!$*,[g]"])
    def test_a_signed_url_is_sent_as_it_came(self, path: str) -> None:
        with hosting(answer(file_of(corners()))) as host:
            read_picture("image", host.url(path), self.RULES)
            assert host.asked == [path.removesuffix("?") if path == "/?" else path]

    def test_a_url_in_other_letters_is_encoded(self) -> None:
        with hosting(answer(file_of(corners()))) as host:
            read_picture("image", host.url("/größe.png"), self.RULES)
            assert host.asked == ["/gr%C3%B6%C3%9Fe.png"]

    def test_a_host_may_redirect_three_times(self) -> None:
        picture = answer(file_of(corners()))

        def lead(request: Any) -> None:
            count = int(request.path.removeprefix("/picture") or 0)
            target = ["picture1", "/picture2", host.url("/picture3")][count] if count < 3 else ""
            answer(b"moved", 302, Location=target)(request) if target else picture(request)

        with hosting(lead) as host:
            assert read_picture("image", host.url(), self.RULES).size == (48, 32)
            assert host.asked == ["/picture", "/picture1", "/picture2", "/picture3"]

    @pytest.mark.parametrize(
        "name", ["cdn.pictures.example", "a.b.pictures.example", "CDN.Pictures.Example", "x.pictures.example."]
    )
    def test_a_listed_host_and_any_below_it(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
        with hosting(answer(file_of(corners()))) as host:
            assert read_picture("image", host.url(host=name), self.RULES).size == (48, 32)

    def test_an_answer_of_exactly_the_limit(self) -> None:
        data = file_of(corners())
        with hosting(answer(data)) as host:
            image = read_picture("image", host.url(), PictureRules(hosts=("127.0.0.1",), max_bytes=len(data)))
        assert image.size == (48, 32)


GREY_16 = b"".join(b"\0" + (value).to_bytes(2) * 2 for value in (0x1234, 0x8000))
CLEAR = Image.new("RGBA", (8, 8), (1, 2, 3, 4))
BLACK_CMYK = Image.new("CMYK", (8, 8), (0, 0, 0, 255))


@pytest.mark.parametrize(
    ("data", "mode", "first_pixel"),
    [
        pytest.param(file_of(Image.new("1", (8, 8), 1)), "RGB", WHITE, id="1 bit"),
        pytest.param(file_of(Image.new("L", (8, 8), 90)), "RGB", (90, 90, 90), id="grey"),
        pytest.param(file_of(Image.new("LA", (8, 8), (90, 40))), "RGBA", (90, 90, 90, 40), id="grey with alpha"),
        pytest.param(file_of(corners().quantize(4)), "RGB", RED, id="palette"),
        pytest.param(file_of(corners().quantize(4), transparency=b"\x07" * 4), "RGBA", (*RED, 7), id="palette, alpha"),
        pytest.param(file_of(corners(), transparency=RED), "RGBA", (*RED, 0), id="one transparent colour"),
        pytest.param(file_of(CLEAR), "RGBA", (1, 2, 3, 4), id="RGBA"),
        pytest.param(file_of(Image.new("RGBA", (8, 8), (1, 2, 3, 255))), "RGBA", (1, 2, 3, 255), id="opaque RGBA"),
        pytest.param(png(2, 2, 16, 0, GREY_16), "RGB", (0x12,) * 3, id="16 bit grey"),
        pytest.param(png(2, 2, 16, 0, GREY_16, chunk(b"tRNS", b"\x12\x34")), "RGBA", (0x12,) * 3 + (255,), id="tRNS"),
        pytest.param(png(1, 1, 16, 2, b"\0\x12\x34\x80\0\xff\xff"), "RGB", (0x12, 0x80, 0xFF), id="16 bit RGB"),
        pytest.param(file_of(Image.new("L", (8, 8), 90), "JPEG"), "RGB", (90, 90, 90), id="grey JPEG"),
        pytest.param(file_of(BLACK_CMYK, "JPEG"), "RGB", (0, 0, 0), id="CMYK JPEG"),
        pytest.param(
            file_of(CLEAR, "WEBP", lossless=True, exact=True),
            "RGBA",
            (1, 2, 3, 4),
            id="WEBP with alpha",
        ),
        pytest.param(file_of(corners(), "WEBP", lossless=True), "RGB", RED, id="WEBP"),
        pytest.param(png(1, 1, 8, 2, b"\0\x01\x02\x03"), "RGB", (1, 2, 3), id="1x1"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb_or_rgba(data: bytes, mode: str, first_pixel: tuple[int, ...]) -> None:
    image = _read(data)
    assert (image.mode, image.getpixel((0, 0))) == (mode, first_pixel)


BLACK = Image.new("RGB", (48, 32))
ANIMATED: dict[str, Any] = {"save_all": True, "append_images": [BLACK, Image.new("RGB", (48, 32), "white")]}


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("BMP", {}),
        ("GIF", {}),
        *(("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("PNG", ANIMATED),
        ("GIF", ANIMATED),
        ("TIFF", ANIMATED),
        ("WEBP", {**ANIMATED, "lossless": True}),
    ],
    ids=lambda one: (
        one if isinstance(one, str) else "animated" if "save_all" in one else one.get("compression", "plain")
    ),
)
def test_every_format_is_read_and_of_several_frames_the_first(format: str, options: dict[str, Any]) -> None:
    assert _pixels(_read(file_of(corners(), format, **options))) == _pixels(corners())


def test_an_avif() -> None:
    image = _read(file_of(corners(), "AVIF", quality=100, subsampling="4:4:4"))
    assert image.size == (48, 32) and type(image) is Image.Image
    for place in ((4, 4), (40, 4), (4, 28), (40, 28)):
        found, wanted = image.getpixel(place), corners().getpixel(place)
        assert isinstance(found, tuple) and isinstance(wanted, tuple)
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 8


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_thousands_of_frames_the_first_is_read_and_no_other(format: str) -> None:
    frames = [Image.new("RGB", (48, 32), (i % 256, i // 256, 0)) for i in range(3_000)]
    data = file_of(corners(), format, save_all=True, append_images=frames, lossless=True)
    start = time.thread_time()
    assert _pixels(_read(data)) == _pixels(corners())
    assert time.thread_time() - start < 2


def test_a_gif_with_a_transparent_colour() -> None:
    image = _read(file_of(corners().quantize(4), "GIF", transparency=0))
    assert image.mode == "RGBA" and sorted({pixel[3] for pixel in _pixels(image)}) == [0, 255]


@pytest.mark.parametrize("order", ["I;16", "I;16B"])
def test_a_tiff_of_16_bits(order: str) -> None:
    grey = Image.frombytes(
        order, (2, 1), b"".join(v.to_bytes(2, "little" if order == "I;16" else "big") for v in (0x1234, 0x8000))
    )
    assert _pixels(_read(file_of(grey, "TIFF"))) == [(0x12,) * 3, (0x80,) * 3]


# EXIF 2.3, table 3: on which side of the upright picture the stored one has its first row and its first column.
FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip
OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", FIRST_ROW_AND_COLUMN)
def test_a_picture_stands_upright(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = _read(file_of(corners(), format, exif=exif))
    row, column = FIRST_ROW_AND_COLUMN[orientation]
    assert image.size == ((48, 32) if row in ("top", "bottom") else (32, 48))
    where = {"red": {row, column}, "lime": {row, OPPOSITE[column]}, "blue": {OPPOSITE[row], column}}
    for colour, sides in where.items():
        x = 4 if "left" in sides else image.width - 5
        y = 4 if "top" in sides else image.height - 5
        found = image.getpixel((x, y))
        assert isinstance(found, tuple)
        wanted = {"red": RED, "lime": LIME, "blue": BLUE}[colour]
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 30, colour


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 50, b""])
def test_unreadable_exif_leaves_the_picture_as_it_is(format: str, exif: bytes) -> None:
    data = file_of(corners(), format, exif=exif)
    assert _read(data).size == (48, 32)
    assert read_parameters("image", _base64(data), RULES) == {}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()], ids=["junk", "LAB"]
)
def test_colour_profiles_are_ignored(format: str, profile: bytes) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    plain, tagged = file_of(corners(), format, **options), file_of(corners(), format, icc_profile=profile, **options)
    assert plain != tagged and _pixels(_read(plain)) == _pixels(_read(tagged))


def test_nothing_but_pixels_goes_on() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "canary"
    data = file_of(corners(), "JPEG", exif=exif, comment="canary", icc_profile=b"canary")
    image = _read(data)
    assert type(image) is Image.Image and image.info == {}
    assert b"canary" in data and b"canary" not in file_of(image, "JPEG")


def test_a_camera_s_jpeg_with_a_second_picture_behind() -> None:
    data = file_of(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert Image.open(io.BytesIO(data)).format == "MPO" and _read(data).size == (48, 32)


def test_a_jpeg_with_a_video_behind() -> None:
    """Phones write such, and some of its bytes look like the beginning of another scan."""
    assert _read(file_of(corners(), "JPEG") + b"\xff\xda" * 1_000).size == (48, 32)


def test_a_progressive_jpeg() -> None:
    assert _read(file_of(corners().resize((4_000, 3_000)), "JPEG", progressive=True)).size == (4_000, 3_000)


def _segments(kind: int, *contents: bytes) -> bytes:
    return b"".join(struct.pack(">BBH", 255, kind, len(content) + 2) + content for content in contents)


def test_a_png_whose_pixels_lie_in_many_chunks() -> None:
    data = png(48, 32, 8, 2, b"".join(b"\0" + bytes(range(144)) for _ in range(32)))
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    single = [chunk(b"IDAT", data[i : i + 1]) for i in range(start, end)]
    many = data[: start - 8] + b"".join([*single, chunk(b"IDAT", b"") * 20_000]) + data[end + 4 :]
    assert len(single) > 100 and _pixels(_read(many)) == _pixels(_read(data))


def test_a_png_with_texts_and_a_profile() -> None:
    texts = [chunk(b"tEXt", b"key%d\0text" % i) for i in range(1_000)]
    packed = [chunk(b"zTXt", b"packed%d\0\0" % i + zlib.compress(b"text")) for i in range(100)]
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(500_000)))
    data = png(1, 1, 8, 2, b"\0\x01\x02\x03", profile, *texts, *packed)
    assert _pixels(_read(data)) == [(1, 2, 3)]
    assert len(read_parameters("image", _base64(data), RULES)) == 1_100


def test_a_jpeg_with_all_that_programs_put_before_the_pixels() -> None:
    """A profile and an XMP packet in hundreds of segments, what Photoshop keeps, a thumbnail, and fill bytes."""
    profile = [b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(60_000) for i in range(1, 256)]
    extended = [b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)] * 60
    photoshop = b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 100
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    thumbnail = b"\0\x10JFXX\0\x10" + file_of(corners(), "JPEG")
    plain = file_of(corners(), "JPEG", exif=exif, comment="x", xmp=b"<x:xmpmeta/>")
    extra = _segments(0xE2, *profile) + _segments(0xE1, *extended) + _segments(0xED, photoshop)
    extra += _segments(0xE0, thumbnail) + b"\xff" * 4_000
    data = plain[:2] + extra + plain[2:]
    assert len(data) < RULES.max_bytes and _pixels(_read(data)) == _pixels(_read(plain))


def test_a_jpeg_with_restart_markers() -> None:
    data = file_of(corners().resize((960, 640)), "JPEG", restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") > 100 and _read(data).size == (960, 640)


def test_a_large_photo_with_a_video_behind() -> None:
    """Of 10 MB, in which each two bytes stand as often as any other."""
    data = file_of(Image.new("RGB", (4_000, 3_000)), "JPEG", progressive=True)
    assert _read(data + b"\xff\xda" * 160 + bytes(10_000_000)).size == (4_000, 3_000)


def test_limits_may_be_reached() -> None:
    assert _read(file_of(corners()), PictureRules(max_pixels=48 * 32)).size == (48, 32)
    assert _read(file_of(Image.new("1", (16_384, 1)))).size == (16_384, 1)
    data = file_of(corners())
    for rules in (PictureRules(max_bytes=len(data)), PictureRules(max_bytes=len(data) + 1)):
        assert _read(data, rules).size == (48, 32)


PROMPTS = ["a red square", "Größe, café", "赤い四角 👩‍🎨", "line\nline", "x" * 5_000, "я" * 5_000]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: ascii(prompt[:12]))
@pytest.mark.parametrize("extension", ["png", "jpeg", "webp"])
def test_our_own_pictures_tell_how_they_were_made(extension: str, prompt: str) -> None:
    request = ask(SDXL, prompt=prompt)
    text = format_metadata(request.pictures[0], make_plan(request), SDXL)
    file = encode(corners(), text, extension, 90)
    assert read_parameters("image", _base64(file.data), RULES) == {"parameters": text}


def test_texts_of_other_programs() -> None:
    chunks = [chunk(b"tEXt", b"Software\0gimp"), chunk(b"iTXt", b"prompt\0\0\0\0\0" + "größe".encode())]
    data = png(1, 1, 8, 2, b"\0\x01\x02\x03", *chunks)
    assert read_parameters("image", _base64(data), RULES) == {"Software": "gimp", "prompt": "größe"}


def test_an_ascii_comment() -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0a red square"
    data = file_of(corners(), "JPEG", exif=exif)
    assert read_parameters("image", _base64(data), RULES) == {"parameters": "a red square"}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_without_texts(format: str) -> None:
    data = file_of(corners(), format, dpi=(72, 72), icc_profile=b"x")
    assert read_parameters("image", _base64(data), RULES) == {}


def test_texts_are_bounded_and_the_parameters_come_first() -> None:
    texts = [chunk(b"tEXt", b"flow%d\0" % i + b"w" * 30_000) for i in range(9)]
    data = png(1, 1, 8, 2, b"\0\x01\x02\x03", *texts, chunk(b"tEXt", b"parameters\0" + b"p" * 20_000))
    found = read_parameters("image", _base64(data), RULES)
    assert found["parameters"] == "p" * 20_000 and 1 < len(found) < 5
    assert sum(len(key) + len(text) for key, text in found.items()) <= 100_000


def test_texts_are_read_without_the_pixels() -> None:
    pixels = chunk(b"IDAT", b"no pixels at all")
    data = png(1, 1, 8, 2, b"", chunk(b"tEXt", b"parameters\0a red square"), pixels)
    assert read_parameters("image", _base64(data), RULES) == {"parameters": "a red square"}
