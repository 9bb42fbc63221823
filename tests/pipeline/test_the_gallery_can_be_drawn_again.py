"""The command that draws docs/gallery.md draws what stands there: the pictures are this worker's, and nobody else's."""

from typing import Any

import numpy
from PIL import Image

from tests.helpers.through_handler import open_picture
from tools.gallery import PICTURES, ROOT, SCENES, read_files
from worker.runtime.worker import Worker

NEAR = 3  # of 255: other processors round otherwise


def test_a_picture_comes_again() -> None:
    (scene,) = (one for one in SCENES if one.name == "inpainting")
    answer: Any = Worker().handle({"id": scene.name, "input": read_files(scene.request, ROOT / PICTURES)})
    (drawn,) = answer["images"]
    shown = Image.open(ROOT / PICTURES / scene.files[0])
    difference = numpy.asarray(open_picture(drawn), float) - numpy.asarray(shown, float)
    assert numpy.abs(difference).mean() < NEAR
