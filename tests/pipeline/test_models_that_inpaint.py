"""Stable Diffusion models whose UNet looks at a mask inpaint through the handler function, from a folder and from one
file: what is drawn is what plain diffusers draws, pixel for pixel, and the rest stays as it came."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForInpainting, StableDiffusionInpaintPipeline
from PIL.Image import Image
from safetensors.torch import save_file

from tests.helpers import tiny_models
from tests.helpers.drawing import hole, load_engine, scene, uri
from tests.helpers.faults import a_worker
from tests.helpers.original_names import checkpoint_weights
from tests.helpers.plain_diffusers import plain
from tests.helpers.through_handler import ask, drawn, open_picture
from worker.engine.load import checkpoint, single_file
from worker.runtime.worker import Worker

MAKERS = {"sd1": tiny_models.sd1, "sd2": tiny_models.sd2, "sdxl": tiny_models.sdxl}
CALL: dict[str, Any] = {"prompt": "a red star", "width": 96, "height": 64, "num_inference_steps": 4}
CALL |= {"guidance_scale": 3.0}
JOB = {**CALL, "seed": 7, "scheduler": "Euler"}
SOURCE, MASK = scene(96, 64), hole(96, 64)
WIDE = 768  # the text that Stable Diffusion 1.x attends to


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind, and one whose index says that it draws from a prompt."""
    root = tmp_path_factory.mktemp("inpainting")
    made = {name: tiny_models.for_inpainting(make()) for name, make in MAKERS.items()}
    made["mislabelled"] = tiny_models.for_inpainting(tiny_models.sd1(), "StableDiffusionPipeline")
    return {name: tiny_models.save(pipeline, root / name) for name, pipeline in made.items()}


def inpaint_plainly(folder: Path, **given: Any) -> Image:
    kind = AutoPipelineForInpainting.from_pretrained(folder).__class__.__name__
    call = {**CALL, "image": SOURCE, "mask_image": MASK, **given}
    return plain(folder, kind)(**call, generator=torch.Generator().manual_seed(7)).images[0]


def assert_painted(ours: Image, theirs: Image) -> None:
    """Theirs where the mask is white, and the source where it is black."""
    white, got, came, expected = (np.asarray(one) for one in (MASK, ours, SOURCE, theirs))
    assert (got[white == 255] == expected[white == 255]).all()
    assert (got[white == 0] == came[white == 0]).all()
    assert (expected[white == 255] != came[white == 255]).any()


@pytest.mark.parametrize("given", [{}, {"strength": 0.6}], ids=str)
@pytest.mark.parametrize("name", [*MAKERS, "mislabelled"])
def test_a_mask(name: str, given: dict[str, float], workers: dict[str, Worker], folders: dict[str, Path]) -> None:
    ours = drawn(workers[name], JOB, given, image=uri(SOURCE), mask=uri(MASK))

    assert_painted(ours, inpaint_plainly(folders[name], **given))


def test_a_batch_inpaints_as_each_alone_but_for_rounding(folders: dict[str, Path], workers: dict[str, Worker]) -> None:
    job = {**JOB, "image": uri(SOURCE), "mask": uri(MASK)}
    with a_worker(MODEL_NAME=str(folders["sdxl"]), MAX_BATCH="2") as worker:
        both = [np.asarray(open_picture(one), np.int16) for one in ask(worker, job, num_images=2)["images"]]
    alone = [np.asarray(drawn(workers["sdxl"], job, seed=seed), np.int16) for seed in (7, 8)]

    assert max(np.abs(one - other).max() for one, other in zip(both, alone, strict=True)) <= 1
    assert np.abs(alone[0] - alone[1]).max() > 1


def test_outpaint(workers: dict[str, Worker]) -> None:
    size: dict[str, Any] = {"width": None, "height": None}

    ours = drawn(workers["sd1"], JOB, size, image=uri(SOURCE), outpaint={"left": 16})

    assert ours.size == (112, 64)
    assert ours.crop((16, 0, 112, 64)).tobytes() == SOURCE.tobytes()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "image"),
        ({"image": uri(SOURCE)}, "mask"),
        ({"image": uri(SOURCE), "mask": uri(MASK), "hires": {"scale": 2}}, "hires"),
    ],
    ids=["a prompt alone", "an image alone", "hires"],
)
def test_what_it_cannot_do_is_refused_by_name(fields: dict[str, Any], field: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers["sd1"], JOB, fields)

    assert field in [one["field"] for one in answer["fields"]], answer
    assert "Stable Diffusion 1.x for inpainting" in answer["error"]


# In one file


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in diffusers layout whose text is as wide as Stable Diffusion 1.x has it, by which files are known."""
    root = tmp_path_factory.mktemp("wide")
    made = tiny_models.sd1()
    text = type(made.text_encoder.config)(**{**made.text_encoder.config.to_dict(), "hidden_size": WIDE})
    made.text_encoder = type(made.text_encoder)(text)
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    more = {"cross_attention_dim": WIDE, "down_block_types": down, "up_block_types": up}
    return tiny_models.save(tiny_models.for_inpainting(made, **more), root / "model")


def test_one_file_draws_as_its_folder(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has the folder's weights under the original code's names; its configs say 4 channels, as published."""
    configs = tmp_path / "sd1"
    model = StableDiffusionInpaintPipeline.from_pretrained(wide)
    tiny_models.save(tiny_models.for_inpainting(model, "StableDiffusionPipeline", in_channels=4), configs)
    shutil.copytree(wide / "tokenizer", tmp_path / "tokenizer")
    for weights in configs.rglob("*.safetensors"):
        weights.unlink()
    for module in (checkpoint, single_file):
        monkeypatch.setattr(module, "CONFIGS", tmp_path)
    file = tmp_path / "sd-v1-5-inpainting.safetensors"
    save_file({name: weight.contiguous() for name, weight in checkpoint_weights(model).items()}, file)

    with a_worker(MODEL_NAME=str(file)) as worker:
        ours = drawn(worker, JOB, image=uri(SOURCE), mask=uri(MASK))
        refused = ask(worker, JOB)

    assert_painted(ours, inpaint_plainly(wide))
    assert refused["code"] == "INVALID_INPUT"


def test_masks_are_its_only_task(wide: Path) -> None:
    assert list(load_engine(MODEL_NAME=str(wide)).capabilities.tasks) == ["inpainting"]
