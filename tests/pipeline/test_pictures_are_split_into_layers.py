"""A picture split into transparent layers, through the handler function, is plain diffusers', pixel for pixel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image

from tests.helpers import tiny_editors, tiny_models
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker, engine_of
from tests.helpers.through_handler import ask, open_picture
from worker.runtime.worker import Worker

CALL: dict[str, Any] = {"prompt": "a square on a table", "num_inference_steps": 2}
JOB: dict[str, Any] = {**CALL, "seed": 7, "guidance_scale": 3, "negative_prompt": "blue", "image": uri(scene())}
SIDE = 64  # pixels that are drawn of a square, an eighth of 640 in steps of 32

pytestmark = pytest.mark.usefixtures("small_references")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_editors.qwen_layered(), tmp_path_factory.mktemp("layered"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    pipeline: Any = tiny_editors.load_plain(folder)
    pipeline.vae.enable_slicing()  # which decodes one by one, as the worker does everywhere
    return pipeline


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[Worker]:
    with a_worker(MODEL_NAME=str(folder)) as made:
        yield made


def split_plainly(pipeline: DiffusionPipeline, image: Image, seed: int = 7, **call: Any) -> list[Image]:
    given = {**CALL, "true_cfg_scale": 3.0, "negative_prompt": "blue", **call}
    layers: list[Image] = pipeline(
        **given, image=image.convert("RGBA"), use_en_prompt=True, generator=torch.Generator().manual_seed(seed)
    ).images[0]
    return layers


def split(worker: Worker, **fields: Any) -> list[Image]:
    answer = ask(worker, JOB, {"width": SIDE, "height": SIDE}, fields)
    assert "error" not in answer, answer
    return [open_picture(one) for one in answer["images"]]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_as_many_layers_as_are_asked_for(layers: int, worker: Worker, plain: DiffusionPipeline) -> None:
    ours, theirs = split(worker, layers=layers), split_plainly(plain, scene(), layers=layers)

    assert len(ours) == len(theirs) == layers
    for one, other in zip(ours, theirs, strict=True):
        assert one.mode == other.mode == "RGBA"
        assert_same(one, other)
    assert len({one.tobytes() for one in ours}) == layers


def test_four_where_the_job_says_nothing(worker: Worker, plain: DiffusionPipeline) -> None:
    ours, theirs = split(worker), split_plainly(plain, scene())

    assert [one.tobytes() for one in ours] == [one.tobytes() for one in theirs]
    assert len(ours) == 4


def test_a_larger_picture_is_drawn_in_the_larger_of_the_models_sizes(worker: Worker, plain: DiffusionPipeline) -> None:
    theirs = split_plainly(plain, scene(), layers=1, resolution=1024)

    ours = split(worker, layers=1, width=1024, height=1024)

    (one,) = ours
    assert one.size == (1024, 1024) and theirs[0].size == (128, 128), "an eighth of it"
    assert one.resize((128, 128)).tobytes() != split(worker, layers=1)[0].resize((128, 128)).tobytes()


def test_the_size_is_that_of_the_models_pictures_in_the_aspect_of_the_one_that_came(worker: Worker) -> None:
    answer = ask(worker, JOB, image=uri(scene(96, 64)), layers=1)

    assert (answer["width"], answer["height"]) == (768, 512)


def test_every_layer_of_every_picture_is_answered_with_its_seed(worker: Worker) -> None:
    answer = ask(worker, JOB, {"width": SIDE, "height": SIDE}, num_images=2, layers=2)

    assert (answer["layers"], answer["seeds"]) == (2, [7, 7, 8, 8])
    assert len(answer["images"]) == len(answer["nsfw"]) == 4
    assert (answer["task"], answer["references"]) == ("editing", 1)
    pictures = [open_picture(one).tobytes() for one in answer["images"]]
    assert pictures[:2] == [one.tobytes() for one in split(worker, layers=2)]
    assert pictures[2:] == [one.tobytes() for one in split(worker, layers=2, seed=8)]


def test_webp_holds_what_is_transparent_and_jpeg_is_refused(worker: Worker) -> None:
    (layer,) = split(worker, layers=1)
    assert min(layer.getchannel("A").tobytes()) < 255

    (webp,) = split(worker, layers=1, output_format="webp")

    assert (webp.format, webp.mode) == ("WEBP", "RGBA")
    answer = ask(worker, JOB, output_format="jpeg")
    assert [one["field"] for one in answer["fields"]] == ["output_format"]


def test_a_layer_carries_what_makes_all_of_them_again(worker: Worker) -> None:
    first = ask(worker, JOB, {"width": SIDE, "height": SIDE}, layers=2)

    again = worker.handle({"id": "again", "input": {"replay": first["images"][1], "image": JOB["image"]}})

    assert isinstance(again, dict)
    assert [open_picture(one).tobytes() for one in again["images"]] == [
        open_picture(one).tobytes() for one in first["images"]
    ]


def test_a_picture_without_words_is_described_by_the_model_itself(worker: Worker, plain: Any) -> None:
    """As plain diffusers has it describe one, of whose words this is told."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        describe = type(plain).get_image_caption
        patch.setattr(type(plain), "get_image_caption", lambda *a, **b: said.append(describe(*a, **b)) or said[-1])
        theirs = split_plainly(plain, scene(), layers=1, prompt="")

    ours = split(worker, layers=1, prompt="")

    assert len(said) == 1 and said[0]
    assert_same(ours[0], theirs[0])
    assert ours[0].tobytes() == split(worker, layers=1, prompt=said[0])[0].tobytes()
    assert ours[0].tobytes() != split(worker, layers=1)[0].tobytes()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"layers": 0}, "layers"),
        ({"layers": 11}, "layers"),
        ({"layers": 10, "num_images": 2}, "num_images"),
        ({"image": None}, "image"),
        ({"images": [uri(scene())]}, "images"),
        ({"mask": uri(hole())}, "mask"),
        ({"prompt": "<|image_pad|>"}, "prompt"),
        ({"width": 2048, "height": 1024}, "height"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_under_its_field(fields: dict[str, Any], field: str, worker: Worker) -> None:
    answer = ask(worker, JOB, fields)

    assert answer["code"] == "INVALID_INPUT", answer
    assert field in [one["field"] for one in answer["fields"]]


def test_what_the_model_can_do_is_told(worker: Worker) -> None:
    told = ask(worker, {"capabilities": True})["capabilities"]

    fields = {one["name"]: one for one in told["fields"]}
    assert (fields["layers"]["minimum"], fields["layers"]["maximum"], fields["layers"]["default"]) == (1, 10, 4)
    assert fields["output_format"]["choices"] == ["png", "webp"]


def test_it_proves_that_it_still_draws(worker: Worker) -> None:
    engine = engine_of(worker)
    worker.model.prove()
    assert engine.capabilities.splits
