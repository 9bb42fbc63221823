"""docs/gallery.md: its requests are those that `make gallery` sends, and its pictures are what came back."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from tests.helpers.asking import model_of
from tools.gallery import MASK, PAGE, PICTURES, ROOT, SCENES, Scene, draw_mask, read_files, write_page
from worker.api.parse import parse
from worker.images.load import PictureRules, read_parameters
from worker.output.metadata import PictureMetadata, parse_metadata
from worker.request import Request

MAX_BYTES = 100_000  # of a picture: the repository is fetched by everybody
MODEL = model_of("shapes", width=256, height=256, loras=("neon",))


def _pixels(name: str) -> Any:
    return numpy.asarray(Image.open(ROOT / PICTURES / name))


def _made_of(name: str) -> PictureMetadata:
    """What the picture says of itself, read as a job's `replay` is."""
    picture = base64.b64encode((ROOT / PICTURES / name).read_bytes()).decode()
    return parse_metadata(read_parameters("replay", picture, PictureRules())["parameters"])


def _ask(scene: Scene) -> Request:
    return parse({"input": read_files(scene.request, ROOT / PICTURES)}, MODEL)[0]


_SHOWN = [(scene, number, name) for scene in SCENES for number, name in enumerate(scene.files)]


def test_the_page_shows_the_requests_that_are_sent() -> None:
    page = (ROOT / PAGE).read_text()
    assert page == write_page(), "run `python -m tools.gallery --page`"
    shown = [json.loads(block)["input"] for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    assert shown == [dict(scene.request) for scene in SCENES]


def test_there_are_no_other_pictures_than_those_on_the_page() -> None:
    names = {path.name for path in (ROOT / PICTURES).iterdir()}
    assert names == {MASK, *(name for _, _, name in _SHOWN)}
    assert {Path(link).name for link in re.findall(r"\]\((images/gallery/[^)]+)\)", write_page())} == names


@pytest.mark.parametrize(("scene", "number", "name"), _SHOWN, ids=[name for _, _, name in _SHOWN])
def test_a_picture_carries_what_its_request_asks_for(scene: Scene, number: int, name: str) -> None:
    made, request = _made_of(name).fields, _ask(scene)
    wanted = request.pictures[number]
    assert (made["prompt"], made["seed"]) == (wanted.prompt, wanted.seed)
    assert made["num_inference_steps"] == request.num_inference_steps
    assert [lora["name"] for lora in made.get("loras", [])] == [lora.name for lora in request.loras]
    assert ("hires" in made) == (request.hires is not None)
    assert (ROOT / PICTURES / name).stat().st_size <= MAX_BYTES


def test_the_mask_is_the_one_that_is_drawn() -> None:
    assert (ROOT / PICTURES / MASK).read_bytes() == draw_mask()


def test_what_the_page_says_of_its_pictures_is_to_be_seen() -> None:
    star, two = _pixels("star.png"), _pixels("two.png")
    assert numpy.array_equal(_pixels("replay.png"), star)
    drawn = _pixels("inpainting.png")
    assert numpy.array_equal(drawn[:, 128:], two[:, 128:]) and not numpy.array_equal(drawn, two)
    wide = _pixels("outpainting.png")
    assert wide.shape == (256, 384, 3) and numpy.array_equal(wide[:, 64:320], star)
    assert _pixels("hires.png").shape == (512, 512, 3)
    assert _pixels("lora-neon.png").mean() < 64 < _pixels("lora.png").mean(), "a dark wall, and a white ground"
