"""What is InstructPix2Pix's own: the size of its picture, its second guidance, and CLIP's prompts in its order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionInstructPix2PixPipeline
from PIL.Image import Image
from transformers import CLIPVisionModelWithProjection

from tests.helpers import tiny_addons, tiny_editors, tiny_models, tiny_viewers
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker, engine_of
from tests.helpers.plain_diffusers import run
from tests.helpers.through_handler import ask, drawn, open_picture, pixels
from worker.images.resize import fit_image
from worker.runtime.worker import Worker

MAKERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "pix2pix": tiny_viewers.pix2pix,
    "pix2pix-xl": tiny_viewers.pix2pix_xl,
}
CALL: dict[str, Any] = {"prompt": "make it red", "num_inference_steps": 3, "guidance_scale": 3.0}
JOB: dict[str, Any] = {**CALL, "seed": 7}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.save_all(MAKERS, tmp_path_factory.mktemp("pix2pix"))


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    return {name: tiny_editors.load_plain(folder) for name, folder in folders.items()}


def plainly(pipeline: DiffusionPipeline, image: Image, **call: Any) -> Image:
    """The same with diffusers alone, in the size of the picture."""
    size = {"width": image.width, "height": image.height} if "XL" in type(pipeline).__name__ else {}
    picture: Image = run(pipeline, **{**CALL, **size, **call}, image=image)[0]
    return picture


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((64, 64), {}, (64, 64)),
        ((128, 64), {}, (112, 64)),
        ((200, 100), {"width": 96}, (96, 64)),
        ((1, 1), {}, (64, 64)),
        ((70, 90), {"width": 128, "height": 64}, (128, 64)),
    ],
    ids=str,
)
def test_the_picture_is_fitted_to_what_is_asked_and_never_stretched(
    name: str,
    size: tuple[int, int],
    asked: dict[str, int],
    expected: tuple[int, int],
    workers: dict[str, Worker],
    plain: dict[str, DiffusionPipeline],
) -> None:
    source = scene(*size)

    answer = ask(workers[name], JOB, asked, image=uri(source))

    ours = open_picture(answer["images"][0])
    assert_same(ours, plainly(plain[name], fit_image("image", source, expected, [])))
    told = [one.partition(":")[0] for one in answer["warnings"]]
    assert ours.size == expected and ("image" in told) == (size != expected)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scale", [None, 1.0, 4.0])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.0])
def test_how_strongly_the_picture_is_kept_is_the_jobs(
    name: str, scale: float | None, guidance: float, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    asked = {"guidance_scale": guidance} | ({} if scale is None else {"image_guidance_scale": scale})

    ours = drawn(workers[name], JOB, asked, image=uri(scene()))

    assert_same(ours, plainly(plain[name], scene(), **asked))
    usual = drawn(workers[name], JOB, {**asked, "image_guidance_scale": 1.5}, image=uri(scene()))
    assert (usual.tobytes() == ours.tobytes()) == (scale is None or guidance <= 1)


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_told_and_kept_in_the_picture(name: str, workers: dict[str, Worker]) -> None:
    fields = {
        one["name"]: one
        for one in workers[name].handle({"id": "x", "input": {"capabilities": True}})["capabilities"]["fields"]
    }
    assert fields["image_guidance_scale"]["default"] == 1.5
    job = {**JOB, "image": uri(scene()), "image_guidance_scale": 4.0}
    first = ask(workers[name], job)["images"][0]

    replayed = {"replay": first, "image": uri(scene())}
    (again,) = workers[name].handle({"id": "again", "input": replayed})["images"]

    assert pixels(again) == pixels(first)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "less than the picture itself": ({"image_guidance_scale": 0.5}, "image_guidance_scale"),
    "two pictures": ({"images": [uri(scene())]}, "images"),
    "a mask": ({"mask": uri(hole())}, "mask"),
    "room around it": ({"outpaint": {"left": 64}}, "outpaint"),
    "a strength": ({"strength": 0.5}, "strength"),
    "a second pass": ({"hires": {}}, "hires"),
    "no picture": ({"image": None}, "image"),
    "a damaged picture": ({"image": uri(scene())[:200]}, "image"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_is_refused_under_its_field(name: str, what: str, workers: dict[str, Worker]) -> None:
    fields, field = REFUSED[what]

    answer = ask(workers[name], JOB, {"image": uri(scene())}, fields)

    assert answer["code"] == "INVALID_INPUT" and [one["field"] for one in answer["fields"]] == [field], answer


@pytest.mark.parametrize("name", MAKERS)
def test_prompts_are_weighted_and_go_on_as_those_of_other_models(name: str, workers: dict[str, Worker]) -> None:
    texts = ["make it red", "make it (red:1.5)", "make it red " + "and red " * 40, "make it red BREAK and blue"]
    pictures = [drawn(workers[name], JOB, image=uri(scene()), prompt=text).tobytes() for text in texts]
    assert len({*pictures}) == len(texts)


def test_a_prompt_changes_at_its_step(workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]) -> None:
    pipeline = plain["pix2pix"]

    def read(prompt: str) -> torch.Tensor:
        return pipeline._encode_prompt(prompt, "cpu", 1, True, "green")  # type: ignore[no-any-return]

    def change(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors | ({"prompt_embeds": read("make it blue")} if index == 0 else {})

    theirs = plainly(pipeline, scene(), negative_prompt="green", callback_on_step_end=change)

    job = {**JOB, "prompt": "make it [red:blue:1]", "negative_prompt": "green"}
    assert_same(drawn(workers["pix2pix"], job, image=uri(scene())), theirs)
    assert drawn(workers["pix2pix"], job, image=uri(scene()), prompt="make it red").tobytes() != theirs.tobytes()


@pytest.mark.parametrize("name", MAKERS)
def test_several_pictures_are_those_drawn_alone(name: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers[name], JOB, image=uri(scene()), num_images=2)

    (alone,) = ask(workers[name], JOB, image=uri(scene()), seed=8)["images"]
    assert pixels(answer["images"][1]) == pixels(alone) != pixels(answer["images"][0])


@pytest.mark.parametrize("name", MAKERS)
def test_a_lora_acts_as_in_plain_diffusers(
    name: str, folders: dict[str, Path], plain: dict[str, DiffusionPipeline], tmp_path: Path
) -> None:
    pipeline = tiny_editors.load_plain(folders[name])
    file = tiny_addons.lora(pipeline, tmp_path / "style.safetensors", 3, text=True)
    pipeline.load_lora_weights(tmp_path, weight_name=file.name, adapter_name="style")
    with a_worker(MODEL_NAME=str(folders[name]), LORA_DIR=str(tmp_path)) as worker:
        ours = drawn(worker, JOB, image=uri(scene()), loras=["style"])
        without = drawn(worker, JOB, image=uri(scene()))

    assert_same(ours, plainly(pipeline, scene()))
    assert_same(without, plainly(plain[name], scene()))
    assert ours.tobytes() != without.tobytes()


def test_a_picture_may_speak_beside_the_prompt(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, shown = folders["pix2pix"], scene(seed=1)
    pipeline = tiny_editors.load_plain(folder)
    file = tiny_addons.ip_adapter(pipeline, tmp_path / "adapter.safetensors")
    encoder = tiny_addons.image_encoder(tmp_path / "encoder")
    with a_worker(MODEL_NAME=str(folder), IP_ADAPTER=str(file), IP_ADAPTER_ENCODER=str(encoder)) as worker:
        ours = drawn(worker, JOB, image=uri(scene()), ip_adapter={"image": uri(shown), "scale": 0.8})

    pipeline.register_modules(image_encoder=CLIPVisionModelWithProjection.from_pretrained(encoder))
    pipeline.load_ip_adapter(str(tmp_path), subfolder="", weight_name=file.name)
    pipeline.set_ip_adapter_scale(0.8)
    assert_same(ours, plainly(pipeline, scene(), ip_adapter_image=shown))


def test_a_safety_checker_sees_what_is_drawn(tmp_path: Path) -> None:
    checked = tiny_models.sd1(safety_checker=True)
    seen = {name: getattr(checked, name) for name in ("safety_checker", "feature_extractor")}
    folder = tiny_models.save(
        StableDiffusionInstructPix2PixPipeline(**tiny_viewers.pix2pix().components | seen), tmp_path
    )
    pipeline = tiny_editors.load_plain(folder)
    with a_worker(MODEL_NAME=str(folder)) as worker:
        answer = ask(worker, JOB, image=uri(scene()))

    assert engine_of(worker).capabilities.safety_checker
    generator = torch.Generator().manual_seed(7)
    assert answer["nsfw"] == pipeline(**CALL, image=scene(), generator=generator).nsfw_content_detected
