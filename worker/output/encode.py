"""A picture -> a file's bytes, with the parameters that made it inside, where AUTOMATIC1111 and Civitai look for them.

Knows formats and metadata; not where the bytes go.
"""

import io
from dataclasses import dataclass

from PIL import ExifTags
from PIL.Image import Exif, Image

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
    image.save(buffer, extension.upper(), quality=quality, exif=_exif(text))
    return File(buffer.getvalue(), extension)


def _exif(text: str) -> Exif:
    """EXIF whose UserComment is the text, marked as Unicode (EXIF 2.3, section 4.6.5)."""
    exif = Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif
