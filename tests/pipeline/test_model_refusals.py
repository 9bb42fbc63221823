"""What MODEL_NAME names and cannot be used is refused in one line that says what it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import tiny_models
from tests.helpers.drawing import load_engine
from worker.errors import ModelError


def refusal(name: object) -> str:
    with pytest.raises(ModelError) as refused:
        load_engine(MODEL_NAME=str(name))
    (line,) = str(refused.value).splitlines()
    return line


def copied(folder: Path, to: Path, **index: Any) -> Path:
    """The same model with other entries in its model_index.json."""
    to.mkdir()
    for part in folder.iterdir():
        (to / part.name).symlink_to(part)
    listed = json.loads((folder / "model_index.json").read_text())
    (to / "model_index.json").unlink()
    (to / "model_index.json").write_text(json.dumps(listed | index))
    return to


@pytest.mark.parametrize(("inputs", "kind"), [(8, None), (5, "StableDiffusionDepth2ImgPipeline")])
def test_a_unet_that_looks_at_a_picture_is_refused(inputs: int, kind: str | None, tmp_path: Path) -> None:
    """One for editing by instruction or by depth, under its own class or under that of Stable Diffusion."""
    made = tiny_models.for_inpainting(tiny_models.sd1(), "StableDiffusionPipeline", in_channels=inputs)
    model = tiny_models.save(made, tmp_path / "model")
    assert "needs a picture too" in refusal(model)
    if kind:
        said = refusal(copied(model, tmp_path / "labelled", _class_name=kind))
        assert kind in said and "needs a picture too" in said


@pytest.mark.parametrize("kind", ["NoSuchPipeline", "DDPMPipeline", "AutoencoderKL"])
def test_a_folder_of_another_pipeline_class(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert kind in refusal(copied(folders["sd1"], tmp_path / "other", _class_name=kind))


def test_a_folder_without_model_index(tmp_path: Path) -> None:
    assert "model_index.json" in refusal(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", "{", '{"unet": 5}'])
def test_a_folder_with_a_broken_index(index: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)
    assert str(tmp_path) in refusal(tmp_path)


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt", "model.txt"])
def test_a_file_that_could_run_code(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert ".safetensors" in refusal(tmp_path / name)


def test_a_folder_with_weights_that_could_run_code(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = copied(folders["sd1"], tmp_path / "pickled")
    (broken / "unet").unlink()
    (broken / "unet").mkdir()
    (broken / "unet" / "config.json").write_bytes((folders["sd1"] / "unet" / "config.json").read_bytes())
    torch.save({}, broken / "unet" / "diffusion_pytorch_model.bin")
    assert "unet" in refusal(broken)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "no-slash", "~/nothing"])
def test_a_name_that_is_nothing(name: str) -> None:
    assert name in refusal(name)


def named(kind: str, folder: Path) -> str:
    """What is said of a model whose index names this class, and nothing else."""
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return refusal(folder)


@pytest.mark.parametrize(
    "kind", ["HeliosPipeline", "WanPipeline", "LTXPipeline", "CogVideoXVideoToVideoPipeline", "TextToVideoZeroPipeline"]
)
def test_a_model_that_makes_videos_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    assert f"is a {kind}, which makes videos" in named(kind, tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("StableAudioPipeline", "makes sound"),
        ("MarigoldDepthPipeline", "takes no prompt"),
        ("DiffusionGemmaPipeline", "returns no pictures"),
        ("UnCLIPPipeline", "has neither a unet nor a transformer"),
        ("BriaFiboEditPipeline", "cannot draw from a prompt alone; it needs a picture too"),
        ("BlipDiffusionPipeline", "needs more than a prompt: reference_image"),
    ],
)
def test_a_model_for_something_else_is_refused_with_what_it_does(kind: str, reason: str, tmp_path: Path) -> None:
    assert reason in named(kind, tmp_path)


@pytest.mark.parametrize("kind", ["os", "ModelMixin", "DDIMScheduler", "DiffusionPipeline", "loaders", "MyPipeline"])
def test_nothing_but_a_pipeline_of_diffusers_is_a_model(kind: str, tmp_path: Path) -> None:
    """A class, a module or a name of anything else is never called."""
    assert kind in named(kind, tmp_path)


def test_code_beside_the_index_is_not_a_class(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("raise SystemExit")
    (tmp_path / "MyPipeline.py").write_text("raise SystemExit")
    assert "diffusers has no pipeline of that name" in named("MyPipeline", tmp_path)
