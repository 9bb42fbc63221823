"""What docs/migrate.md says of other workers' requests is what this worker makes of them."""

import json
import re
from typing import Any

import pytest

from tests.helpers.asking import SD1, SDXL, ask, model_of, picture, refusal
from tests.helpers.documents import ROOT, Document
from tests.helpers.published_requests import REPLICATE
from worker.api.schema import Fields, spellings
from worker.request import Request

PAGE = Document(ROOT / "docs" / "migrate.md")
REFINED = model_of("sdxl", refiner=True)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.text, re.DOTALL | re.MULTILINE))


def _inputs(section: str) -> list[dict[str, Any]]:
    """The requests of a section."""
    blocks = re.findall(r"```json\n(.*?)```", SECTIONS[section], re.DOTALL)
    return [json.loads(block)["input"] for block in blocks]


def _drawn(section: str, number: int = 0, model: Any = SDXL, **beside: Any) -> Request:
    return ask(model, **{**_inputs(section)[number], **beside})


def test_every_worker_of_the_first_table_has_its_section_and_its_request() -> None:
    links = re.findall(r"^\| \[([^]]+)\]\(#", PAGE.text, re.MULTILINE)
    assert [section.lower() for section in SECTIONS] == [link.lower() for link in links]
    assert all(_inputs(section) for section in SECTIONS)


def test_worker_sdxl() -> None:
    request = _drawn("worker-sdxl", model=REFINED)
    assert request.scheduler.class_name == "EulerDiscreteScheduler"
    assert request.refinement and (request.refinement.high_noise_frac, request.refinement.steps) == (0.8, 50)
    assert request.warnings == ("strength: has no effect without an image",)
    without = _drawn("worker-sdxl").warnings
    assert {one.partition(":")[0] for one in without} == {"strength", "high_noise_frac", "refiner_inference_steps"}


def test_a1111() -> None:
    request = _drawn("worker-a1111", model=SD1)
    assert request.scheduler.name == "DPM++ 2M Karras" and request.clip_skip == 1 and len(request.pictures) == 2
    assert request.hires and (request.hires.scale, request.hires.strength, request.hires.latent) == (2, 0.7, True)
    other = _drawn("worker-a1111", 1, init_images=[picture(64, 64)])
    assert other.init_image and (other.init_image.strength, other.scheduler.name) == (0.75, "DPM++ SDE Karras")


@pytest.mark.parametrize("field", ["restore_faces", "tiling"])
def test_what_a1111_has_and_this_has_not_is_refused_by_name(field: str) -> None:
    assert refusal(SDXL, **{field: True}).startswith(f"{field}: ")


def test_comfyui() -> None:
    request = _drawn("worker-comfyui")
    assert request.scheduler.name == "DPM++ 2M Karras"
    assert (request.num_inference_steps, request.guidance_scale) == (20, 8)
    assert "workflow: " in refusal(SDXL, workflow={"6": {}})


def test_replicate() -> None:
    request = _drawn("Replicate", model=model_of("flux-schnell"))
    assert request.width > request.height
    assert {one.partition(":")[0] for one in request.warnings} == {"go_fast"}
    named = {name for fields in REPLICATE.values() for name in fields}
    assert {*_inputs("Replicate")[0]} - {"prompt"} <= named


def test_banana() -> None:
    request = _drawn("banana", model=SD1)
    assert (request.width, request.height, request.num_inference_steps, request.guidance_scale) == (512, 768, 20, 7)
    assert request.scheduler.class_name == "LMSDiscreteScheduler"


def test_fields_that_stay_the_same_are_fields() -> None:
    known = {*Fields.model_fields, *spellings()}
    rows = re.findall(r"^\| (.+?) \| the same \|$", PAGE.text, re.MULTILINE)
    fields = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert len(fields) > 7 and fields <= known
