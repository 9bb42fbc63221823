"""A picture -> a file's bytes, with the parameters that made it inside, where AUTOMATIC1111 and Civitai look for them.

Knows formats and metadata; not where the bytes go.
"""

import io
from dataclasses import dataclass

from PIL import ExifTags
from PIL.Image import Exif, Image, alpha_composite
from PIL.Image import new as new_image

from worker.output.png import write_png


@dataclass(frozen=True)
class File:
    """An encoded picture.

    Attributes:
        extension: png, jpeg or webp, which is also the MIME subtype.
    """

    data: bytes
    extension: str

    @property
    def mime_type(self) -> str:
        """As in a data URI or an HTTP Content-Type."""
        return f"image/{self.extension}"


def encode(image: Image, text: str, extension: str, quality: int) -> File:
    """The picture as a file with `text` embedded.

    Args:
        extension: png (text chunk "parameters"), jpeg or webp (EXIF UserComment).
        quality: 1 to 100, of jpeg and webp.
    """
    if extension == "png":
        return File(write_png(image, text), extension)
    buffer = io.BytesIO()
    flat = _lay_on_white(image) if extension == "jpeg" else image
    flat.save(buffer, extension.upper(), quality=quality, exif=_exif(text))
    return File(buffer.getvalue(), extension)


def _lay_on_white(image: Image) -> Image:
    """The picture without transparent parts, which JPEG has not."""
    if image.mode != "RGBA":
        return image
    white = new_image("RGBA", image.size, "white")
    return alpha_composite(white, image).convert("RGB")


def _exif(text: str) -> Exif:
    """EXIF whose UserComment is the text, marked as Unicode (EXIF 2.3, section 4.6.5)."""
    exif = Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif
