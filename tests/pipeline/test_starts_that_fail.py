"""Damaged models and settings that do not fit: each is one line that names the file or the setting, and exit code 1.

Here in one process, up to the line on the terminal; tests/platform has the same with real workers, for a few of them.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.baked_graphs import BakedDevice
from worker.engine.denoiser.graphs import Graphs
from worker.engine.engine import Engine
from worker.errors import ModelError
from worker.runtime import loaded_model
from worker.runtime.gate import report_load_failure
from worker.runtime.worker import Worker
from worker.settings import Settings

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(autouse=True)
def a_worker_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of this machine counts, and what the worker does to its log does not last."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    log = logging.getLogger("worker")
    kept = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.level, log.propagate = kept


def without_weights(path: Path, count: int) -> None:
    """Leave the first few tensors out."""
    tensors = load_file(path)
    save_file({name: tensors[name] for name in list(tensors)[count:]}, path, {"format": "pt"})


def reshaped(path: Path) -> None:
    """Give the first tensor another shape."""
    tensors = load_file(path)
    save_file({**tensors, next(iter(tensors)): torch.zeros(3, 3)}, path, {"format": "pt"})


def emptied(folder: Path) -> None:
    """Leave the folder, and nothing in it."""
    shutil.rmtree(folder)
    folder.mkdir()


def without_entry(path: Path, name: str) -> None:
    """Leave an entry of a JSON file out."""
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))


# What was done to the model -> how, and what the line must say.
DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "truncated": (lambda at: (at / UNET).write_bytes((at / UNET).read_bytes()[:-5]), (UNET, "incomplete")),
    "only its header": (lambda at: (at / UNET).write_bytes((at / UNET).read_bytes()[:600]), (UNET, "incomplete")),
    "a web page": (lambda at: (at / UNET).write_text("<!DOCTYPE html>"), (UNET, "a web page")),
    "an LFS pointer": (lambda at: (at / TEXT).write_text("version https://git-lfs.github.com/spec/v1"), (TEXT, "LFS")),
    "empty weights": (lambda at: (at / TEXT).write_bytes(b""), (TEXT, "is empty")),
    "no config": (lambda at: (at / "unet/config.json").unlink(), ("unet", "config.json is missing")),
    "no text config": (lambda at: (at / "text_encoder/config.json").unlink(), ("text_encoder", "config.json")),
    "a web page as config": (lambda at: (at / "vae/config.json").write_text("<html>"), ("vae/config.json", "JSON")),
    "a list as config": (lambda at: (at / "vae/config.json").write_text("[]"), ("vae/config.json", "JSON object")),
    "no component": (lambda at: shutil.rmtree(at / "unet"), ("unet is missing",)),
    "no scheduler": (lambda at: shutil.rmtree(at / "scheduler"), ("scheduler is missing",)),
    "no tokenizer": (lambda at: shutil.rmtree(at / "tokenizer"), ("tokenizer is missing",)),
    "no vocabulary": (lambda at: emptied(at / "tokenizer"), ("tokenizer holds no vocabulary",)),
    "an index without a part": (lambda at: without_entry(at / "model_index.json", "unet"), ("unet",)),
    "a UNet with gaps": (lambda at: without_weights(at / UNET, 2), ("missing 2 weights in unet",)),
    "a text encoder with gaps": (lambda at: without_weights(at / TEXT, 1), ("missing 1 weights in text_encoder",)),
    "a text encoder of gaps": (lambda at: without_weights(at / TEXT, 35), ("missing 35 weights in text_encoder",)),
    "a UNet of other shapes": (lambda at: reshaped(at / UNET), ("do not fit its config",)),
    "a text encoder of other shapes": (lambda at: reshaped(at / TEXT), ("do not fit its config",)),
}

# The setting that is wrong -> its value, and what the line must say.
SETTINGS = {
    "MODEL_NAME": ("/models/none", "neither a folder"),
    "MAX_STEPS": ("many", "integer"),
    "VAE_NAME": ("/no/such/vae", "neither a folder"),
    "REFINER_NAME": ("/no/such/refiner", "only Stable Diffusion XL"),
    "DEFAULT_SCHEDULER": ("Flow Euler", "Stable Diffusion 1.x takes one of LMS"),
    "DEFAULT_STEPS": ("501", "LMS takes 2 to 500 steps"),
    "DEFAULT_SIZE": ("100x96", "multiples of 8"),
    "QUANTIZE": ("4bit", "needs a CUDA device"),
    "OFFLOAD": ("disk", "'group'"),
}


def last_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **environment: str) -> str:
    """The line that a local run prints before it leaves with exit code 1; it logs nothing worse than information."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    worker = Worker()
    with pytest.raises(SystemExit) as left:
        report_load_failure(worker.failure, on_platform=False)
    assert left.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith("INFO")]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_named(
    damage: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    do, words = DAMAGE[damage]
    do(shutil.copytree(folders["sd1"], tmp_path / "damaged"))

    line = last_words(monkeypatch, capsys, MODEL_NAME=str(tmp_path / "damaged"))

    assert line.startswith("MODEL_ERROR: ")
    for word in (str(tmp_path / "damaged"), *words):
        assert word in line


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_does_not_fit_is_named(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value, words = SETTINGS[name]

    line = last_words(monkeypatch, capsys, **{"MODEL_NAME": str(folders["sd1"]), name: value})

    assert f": {name}: " in line
    assert words in line


def test_what_is_compiled_when_a_start_fails_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would wait for it at its end."""
    told = []

    def fail(engine: Engine, _: Settings) -> None:
        monkeypatch.setattr(graphs, "stop_compiling", lambda: told.append(graphs))
        for runner in engine.runners:
            runner.graphs = graphs
        object.__setattr__(engine, "graphs", graphs)
        raise ModelError("an add-on does not work")

    graphs = Graphs(BakedDevice(), measure=False)
    monkeypatch.setattr(loaded_model, "try_addons", fail)
    monkeypatch.delenv("MODEL_NAME", raising=False)
    worker = Worker()
    worker.close()
    assert isinstance(worker.failure, ModelError)
    assert told == [graphs]
