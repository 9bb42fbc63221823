"""Whatever picture a job has edited, it is edited as people see it, or refused under its field."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import ExifTags
from PIL import Image as Pillow
from PIL.Image import Image

from tests.helpers import tiny_editors, tiny_glm, tiny_models, tiny_viewers
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker, a_worker_each
from tests.helpers.through_handler import ask, drawn
from worker.runtime.worker import Worker

MAKERS = {"qwen-edit": tiny_editors.qwen_edit, "qwen-2.1": tiny_viewers.qwen_image21}
CALL: dict[str, Any] = {"prompt": "make it red", "width": 96, "height": 64, "num_inference_steps": 2}
JOB: dict[str, Any] = {**CALL, "seed": 7}


@pytest.fixture
def small_references() -> Iterator[None]:
    with tiny_editors.small_references():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.save_all(MAKERS, tmp_path_factory.mktemp("editors"))


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    return {name: tiny_editors.load_plain(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def workers(folders: dict[str, Path]) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        with tiny_editors.small_references():
            made = stack.enter_context(a_worker_each(folders))
        yield made


def draw_plainly(pipeline: DiffusionPipeline, image: Image, **call: Any) -> Image:
    """Guided away from nothing in particular, as where a job brings no negative prompt."""
    given = {**CALL, "negative_prompt": " ", "true_cfg_scale": 3.0, **call}
    picture: Image = pipeline(**given, image=image, generator=torch.Generator().manual_seed(7)).images[0]
    return picture


def sent(image: Image, kind: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _turned() -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    return exif


def _palette() -> Image:
    return scene().convert("P", palette=Pillow.Palette.ADAPTIVE, colors=16)


def _half() -> Image:
    """Its left half is transparent."""
    alpha = Pillow.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 32, 64))
    image = scene().convert("RGBA")
    image.putalpha(alpha)
    return image


def _on_white(image: Image) -> Image:
    white = Pillow.new("RGBA", image.size, "white")
    return Pillow.alpha_composite(white, image).convert("RGB")


FRAMES = [scene(seed=seed) for seed in range(3)]
RED = Pillow.new("RGB", (64, 64), "red")
# What is sent, and what people see of it.
PICTURES: dict[str, tuple[str, Callable[[], Image]]] = {
    "one pixel": (sent(Pillow.new("RGB", (1, 1), "red")), lambda: RED),
    "wide": (sent(scene(1024, 64)), lambda: scene(1024, 64)),
    "tall": (sent(scene(64, 1024)), lambda: scene(64, 1024)),
    "opaque alpha": (sent(scene().convert("RGBA")), scene),
    "transparent": (sent(_half()), lambda: _on_white(_half())),
    "grey": (sent(scene().convert("L")), lambda: scene().convert("L").convert("RGB")),
    "black and white": (sent(scene().convert("1")), lambda: scene().convert("1").convert("RGB")),
    "16 bits": (sent(Pillow.new("I;16", (64, 64), 65535)), lambda: Pillow.new("RGB", (64, 64), "white")),
    "CMYK": (sent(scene().convert("CMYK"), "TIFF"), lambda: scene().convert("CMYK").convert("RGB")),
    "palette": (sent(_palette()), lambda: _palette().convert("RGB")),
    "animated": (sent(FRAMES[0], save_all=True, append_images=FRAMES[1:]), lambda: FRAMES[0]),
    "turned": (sent(scene(96, 64), exif=_turned()), lambda: scene(96, 64).rotate(-90, expand=True)),
}


@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("form", PICTURES)
@pytest.mark.parametrize("name", MAKERS)
def test_it_is_edited_as_people_see_it(
    name: str, form: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    told, seen = PICTURES[form]

    ours = drawn(workers[name], JOB, image=told, guidance_scale=3)

    assert_same(ours, draw_plainly(plain[name], seen()))


def test_the_longest_picture_that_there_can_be_is_edited(workers: dict[str, Worker]) -> None:
    """Processors refuse pictures too far from square; in their own sizes, as only those are as long."""
    job = {**JOB, "guidance_scale": 1, "num_inference_steps": 1}

    ours = drawn(workers["qwen-2.1"], job, image=uri(scene(64, 8192)))

    assert ours.size == (96, 64) and ours.tobytes() != drawn(workers["qwen-2.1"], job).tobytes()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "eleven": ({"images": [uri(scene())] * 11}, "images"),
    "a mask alone": ({"image": None, "mask": uri(hole())}, "mask"),
    "a prompt of 5001 letters": ({"prompt": "x" * 5001}, "prompt"),
    "a negative prompt with a picture's word": ({"negative_prompt": "<|image_pad|>"}, "negative_prompt"),
    "a second pass": ({"hires": {}}, "hires"),
    "a strength": ({"strength": 0.5}, "strength"),
    "a length": ({"max_sequence_length": 64}, "max_sequence_length"),
    "two scales": ({"true_cfg_scale": 2, "guidance_scale": 3}, "true_cfg_scale"),
    "no picture at all": ({"image": sent(scene())[:200]}, "image"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_is_refused_under_its_field(name: str, what: str, workers: dict[str, Worker]) -> None:
    fields, field = REFUSED[what]

    answer = ask(workers[name], JOB, {"image": uri(scene())}, fields)

    assert answer["code"] == "INVALID_INPUT", answer
    assert field in [one["field"] for one in answer["fields"]]


def test_glm_image_draws_from_prompts_and_refuses_pictures_by_name(tmp_path: Path) -> None:
    with a_worker(MODEL_NAME=str(tiny_models.save(tiny_glm.glm(), tmp_path))) as worker:
        for field, value in (("image", uri(scene())), ("images", [uri(scene())]), ("images", [uri(scene())] * 2)):
            answer = ask(worker, JOB, {field: value})
            assert [one["field"] for one in answer["fields"]] == [field], answer


def test_no_call_of_glm_image_reads_a_picture_with_these_versions() -> None:
    """Why it is refused: diffusers joins features that transformers takes one by one. Where this fails, it can be."""
    pipeline = tiny_glm.glm()

    with pytest.raises(RuntimeError, match=r"expected input.*to have 16 channels"):
        pipeline("a boat", image=[scene()], height=64, width=64, num_inference_steps=1)


def test_a_mask_is_refused_where_none_is_taken(workers: dict[str, Worker]) -> None:
    answer = ask(workers["qwen-2.1"], JOB, image=uri(scene()), mask=uri(hole()))

    assert [one["field"] for one in answer["fields"]] == ["mask"]


@pytest.mark.usefixtures("small_references")
def test_no_pictures_are_a_prompt_alone_or_are_missed(
    workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    answer = ask(workers["qwen-edit"], JOB, images=[])
    assert [one["field"] for one in answer["fields"]] == ["image"]

    ours = drawn(workers["qwen-2.1"], JOB, images=[], guidance_scale=3)
    assert_same(ours, draw_plainly(plain["qwen-2.1"], None))  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("scale", ["true_cfg_scale", "guidance_scale"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_negative_prompt_without_guidance_is_said_to_have_no_effect(
    name: str, scale: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    given = {"image": uri(scene()), scale: 1}

    ours = ask(workers[name], JOB, given, negative_prompt="blue")

    assert ours["warnings"] == ["negative_prompt: has no effect with a guidance_scale of 1; above 1 it has"]
    without = ask(workers[name], JOB, given)
    assert without["warnings"] == []
    assert_same(
        drawn(workers[name], JOB, given, negative_prompt="blue"), draw_plainly(plain[name], scene(), true_cfg_scale=1.0)
    )
    guided = ask(workers[name], JOB, given, {scale: 3}, negative_prompt="blue")
    assert guided["warnings"] == []
