"""What a job names as a picture -> a checked PIL image: a URL, a data URI, base64 or a file on the network volume.

Bytes are bounded before they are read, pixels before they are decoded. Colour profiles are ignored, as diffusers'
own `load_image` does. Nothing here knows what the picture is for.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pybase64
from PIL import ExifTags, Image, ImageOps

from worker.errors import InvalidInputError, UnusablePictureError
from worker.files import DiskError, OversizeError, UnreadableError, follow_links, read_file
from worker.http import host_of
from worker.images.fetch import fetch
from worker.images.guard import count_hidden_pixels, count_scans
from worker.settings import VOLUME

# A job's EXIF can have Pillow warn 65,000 times a picture, past the worker's log; Python would keep every warning.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis")  # brands of ISO/IEC 23008-12
MAX_SIDE = 16_384
# Pixels times scans: a JPEG may repeat passes over all its pixels at 14 bytes a pass. Ten passes are usual, and at 50
# megapixels 30 are let through.
_MAX_SCANNED_PIXELS = 1_500_000_000
MAX_LARGEST = 3  # pictures of the largest size that many smaller ones may be as much as
_MAX_TEXT_LENGTH = 100_000  # characters of a picture's texts, names included
# The character codes of a UserComment (EXIF 2.3, section 4.6.5) that image generators write.
_COMMENT_CODES = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii"}


@dataclass(frozen=True)
class PictureRules:
    """What the endpoint's owner lets jobs name as pictures, and for how long a job is still wanted.

    Attributes:
        hosts: of URLs, as `worker.images.fetch.fetch` takes them.
        max_bytes: of the file.
        max_pixels: of the picture as sent, before it is scaled.
        volume: the folder below which files may be named.
        timeout_s: for fetching a URL.
        check: called before each picture is read or decoded, and while one is fetched; what it raises ends that.
    """

    hosts: tuple[str, ...] = ()
    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    volume: Path = VOLUME
    timeout_s: float = 20.0
    check: Callable[[], None] = lambda: None


def read_picture(name: str, reference: str, rules: PictureRules) -> Image.Image:
    """The picture that a field names, upright, fully decoded, in mode RGB, or RGBA if the file speaks of transparency.

    Args:
        name: the field, for error texts, for example `image` or `controlnet.0.image`.

    Raises:
        InvalidInputError: names the field, what came (never all of a URL or of base64) and what is allowed.
    """
    with _name_field(name, reference):
        image = _open(_read_bytes(reference.strip(), rules), rules)
        rules.check()
        return _decode(image)


class RemainingPictures:
    """Reads several pictures of one field, one after the other: all together may take no more than a few of the
    largest, in bytes and in pixels as sent."""

    def __init__(self, rules: PictureRules) -> None:
        """Nothing is read yet; each picture is held to these rules, too."""
        self._rules = rules
        self._bytes, self._pixels = MAX_LARGEST * rules.max_bytes, MAX_LARGEST * rules.max_pixels

    def read(self, name: str, reference: str) -> Image.Image:
        """As `read_picture`.

        Raises:
            InvalidInputError: as `read_picture`; or the pictures are too large together.
        """
        with _name_field(name, reference):
            data = _read_bytes(reference.strip(), self._rules)
            image = _open(data, self._rules)
            self._bytes, self._pixels = self._bytes - len(data), self._pixels - image.width * image.height
            if self._bytes < 0 or self._pixels < 0:
                sizes = f"{MAX_LARGEST * self._rules.max_bytes} bytes and {MAX_LARGEST * self._rules.max_pixels} pixels"
                raise UnusablePictureError(f"the pictures may have at most {sizes} together, with it they have more")
            self._rules.check()
            return _decode(image)


def read_parameters(name: str, reference: str, rules: PictureRules) -> dict[str, str]:
    """The texts a picture carries: PNG text chunks before its pixels, or the EXIF UserComment of jpeg and webp under
    the key "parameters". Texts beyond 100,000 characters together are left out; pixels are not decoded.

    Raises:
        InvalidInputError: as `read_picture`.
    """
    with _name_field(name, reference):
        image = _open(_read_bytes(reference.strip(), rules), rules)
    found = _read_text_chunks(image) if image.format == "PNG" else _read_user_comment(image)
    kept: dict[str, str] = {}
    room = _MAX_TEXT_LENGTH
    for key, text in sorted(found.items(), key=lambda item: item[0] != "parameters"):
        if len(key) + len(text) <= room:
            room -= len(key) + len(text)
            kept[key] = text
    return kept


@contextlib.contextmanager
def _name_field(name: str, reference: str) -> Iterator[None]:
    try:
        yield
    except UnusablePictureError as problem:
        raise InvalidInputError([f"{name}: got {_summarize(reference.strip())}; {problem}"]) from None


def _summarize(reference: str) -> str:
    """What came, without a URL's path and query, which may hold secrets."""
    if "://" in reference[:20] or reference[:5].lower() == "http:":
        host = host_of(reference)
        return f"a URL at {host}" if host else "a URL"
    if reference[:5].lower() == "data:":
        return f"a data URI of {len(reference)} characters"
    return repr(reference) if len(reference) <= 80 else f"text of {len(reference)} characters"


def _read_bytes(reference: str, rules: PictureRules) -> bytes:
    """The bytes of the file, no more than `max_bytes`."""
    rules.check()
    if len(reference) > rules.max_bytes * 3 // 2 + 1_000:
        raise _too_large(rules)
    scheme, colon, _ = reference[:10].partition(":")
    match scheme.lower() if colon else "":
        case "http" | "https":
            return fetch(reference, rules.hosts, rules.max_bytes, rules.timeout_s, rules.check)
        case "data":
            return _from_data_uri(reference, rules)
        case "volume":
            return _from_volume(rules.volume / reference[7:], rules)
    if reference.startswith(f"{rules.volume}/"):
        return _from_volume(Path(reference), rules)
    if "://" in reference[:20]:
        raise UnusablePictureError("a URL starts with http:// or https://")
    return _from_base64(reference, rules)


def _too_large(rules: PictureRules) -> UnusablePictureError:
    return UnusablePictureError(f"a picture may have at most {rules.max_bytes} bytes, this one has more")


def _from_data_uri(uri: str, rules: PictureRules) -> bytes:
    head, _, payload = uri.partition(",")
    if not head.lower().endswith(";base64"):
        raise UnusablePictureError("a data URI starts with data:image/png;base64, or the like for other formats")
    return _from_base64(payload, rules)


def _from_base64(text: str, rules: PictureRules) -> bytes:
    """The bytes that base64 of either alphabet stands for, with or without padding, in one line or many."""
    letters = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if len(letters) * 3 // 4 > rules.max_bytes:
        raise _too_large(rules)
    try:
        return pybase64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except ValueError:
        raise UnusablePictureError(
            f"that is neither a URL, a data URI, base64 nor a path below {rules.volume}"
        ) from None


def _from_volume(path: Path, rules: PictureRules) -> bytes:
    """The bytes of a regular file that is below the volume once all links are followed."""
    try:
        real = follow_links(path, rules.check)
        if real.is_relative_to(follow_links(rules.volume, rules.check)):
            return read_file(real, rules.max_bytes, rules.check, os.O_NOFOLLOW)  # a link may have been put here since
    except OversizeError:
        raise _too_large(rules) from None
    except DiskError as error:
        raise UnusablePictureError(f"the file {error.reason}") from None
    except UnreadableError:  # what it is instead is nobody's business
        pass
    raise UnusablePictureError(f"there is no such file below {rules.volume}")


def _open(data: bytes, rules: PictureRules) -> Image.Image:
    """The picture with its header read and its pixels not; the first frame of several."""
    sizes = f"a picture may have at most {rules.max_pixels} pixels, and {MAX_SIDE} on a side"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        raise UnusablePictureError("HEIC, in which phones keep photographs, is not read; save it as JPEG")
    scans = count_scans(data)
    if count_hidden_pixels(data) > rules.max_pixels:
        raise UnusablePictureError(f"{sizes}, this one has more")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UnusablePictureError(f"{sizes}, this one has more") from None
    except Exception:  # codecs raise whatever they stumble over
        raise UnusablePictureError(f"that is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from None
    width, height = image.size
    if width * height > rules.max_pixels or max(width, height) > MAX_SIDE:
        raise UnusablePictureError(f"{sizes}, {width}x{height} is more")
    if scans * width * height > _MAX_SCANNED_PIXELS:
        raise UnusablePictureError("the JPEG needs too many passes over its pixels")
    return image


def _decode(image: Image.Image) -> Image.Image:
    try:
        image.load()
        with contextlib.suppress(Exception):  # EXIF that cannot be read says nothing about orientation
            ImageOps.exif_transpose(image, in_place=True)
        plain = _to_eight_bits(image)
    except UnusablePictureError:
        raise
    except Exception:  # codecs raise whatever they stumble over
        raise UnusablePictureError("the picture's data are broken or cut short") from None
    plain.info = {}  # nothing of the file's metadata goes on to what is drawn
    return plain


def _to_eight_bits(image: Image.Image) -> Image.Image:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode in ("I", "F"):
        raise UnusablePictureError("numbers of 32 bits are no colours; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):  # Pillow would clip it
        image = image.convert("I").point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # a grey of 16 bits; there is none like it any more
    return image.convert(mode)


def _read_text_chunks(image: Image.Image) -> dict[str, str]:
    return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}


def _read_user_comment(image: Image.Image) -> dict[str, str]:
    try:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except Exception:  # EXIF that cannot be read says nothing
        return {}
    if not isinstance(comment, bytes) or comment[:8] not in _COMMENT_CODES:
        return {}
    return {"parameters": comment[8:].decode(_COMMENT_CODES[comment[:8]], "replace")}
