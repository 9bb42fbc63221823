"""PNG as this worker writes it: any reader finds the same pixels and the same text, however the work was shared out."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from worker.output.png import COLOR_TYPES, MIN_STRIP_BYTES, write_png

CHANNELS = {"L": (), "RGB": (3,), "RGBA": (4,)}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)


def pictures(mode: str, sides: tuple[int, int]) -> st.SearchStrategy[Image.Image]:
    """Pictures of this mode."""
    shape = st.tuples(*(st.integers(1, side) for side in sides)).map(lambda size: (*size, *CHANNELS[mode]))
    return arrays.arrays(np.uint8, shape).map(Image.fromarray)


def read(data: bytes) -> tuple[Image.Image, str]:
    """The picture and its text, as Pillow reads them, which also checks every sum."""
    Image.open(io.BytesIO(data)).verify()
    found = Image.open(io.BytesIO(data))
    found.load()
    return found, found.info["parameters"]


@pytest.mark.parametrize("mode", COLOR_TYPES)
@given(data=st.data(), text=TEXTS)
def test_what_is_written_is_read(mode: str, data: st.DataObject, text: str) -> None:
    image = data.draw(pictures(mode, (40, 40)))
    found, told = read(write_png(image, text))
    assert found.mode == mode and np.array_equal(np.asarray(found), np.asarray(image))
    assert told == text


@pytest.mark.parametrize("size", [(256, 256), (1024, 70), (3, 40_000), (40_000, 3), (513, 257)])
def test_a_picture_in_strips(size: tuple[int, int]) -> None:
    shape = (size[1], size[0], 3)
    assert np.prod(shape) >= 2 * MIN_STRIP_BYTES, "else there is one strip"
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    smooth = np.cumsum(noise // 64, axis=0).astype(np.uint8)
    for pixels in (noise, smooth, np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        found, _ = read(write_png(Image.fromarray(pixels), "several strips"))
        assert np.array_equal(np.asarray(found), pixels)


def test_a_picture_of_something_takes_no_more_than_pillow_makes_of_it() -> None:
    waves = np.add.outer(np.sin(np.arange(300) / 40), np.cos(np.arange(400) / 30))
    image = Image.fromarray(np.stack([(waves + 2) * scale for scale in (50, 60, 40)], axis=-1).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    assert len(write_png(image, "")) < 1.1 * len(buffer.getvalue())
