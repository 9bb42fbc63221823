"""A start reads ahead what it will need, in bounds, and nothing that keeps it from starting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker import read_ahead
from worker.settings import EMBEDDED_MODEL, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every piece that was read: a file's name and the offset."""
    pieces: list[tuple[str, int]] = []
    monkeypatch.setattr(read_ahead, "_read_piece", lambda file, offset, _: pieces.append((file.name, offset)))
    return pieces


def test_weights_are_those_that_will_be_loaded(tmp_path: Path) -> None:
    for name in ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").touch()
    (plain,) = read_ahead.list_weights(tmp_path, None)
    (half,) = read_ahead.list_weights(tmp_path, "fp16")
    assert plain.name == "diffusion_pytorch_model.safetensors"
    assert half.name == "diffusion_pytorch_model.fp16.safetensors"


def test_a_denoiser_of_its_own_is_read_instead_of_the_bases(tmp_path: Path) -> None:
    for name in ("base/transformer", "base/vae", "."):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "model.safetensors").touch()
    settings = Settings(model_name=str(tmp_path / "base"), transformer_name=str(tmp_path / "model.safetensors"))

    found = [file for file in read_ahead._list_files(settings) if file.is_relative_to(tmp_path)]

    assert found == [tmp_path / "base" / "vae" / "model.safetensors", tmp_path / "model.safetensors"]


def test_the_embedded_model_has_weights_to_read() -> None:
    assert {file.parent.name for file in read_ahead.list_weights(EMBEDDED_MODEL, None)} >= {"unet", "vae"}


def test_whole_files_in_order_and_no_more_than_memory_allows(
    tmp_path: Path, read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        with (tmp_path / name).open("wb") as file:
            file.truncate(20 << 20)
    monkeypatch.setattr(read_ahead, "THREADS", 1)
    monkeypatch.setattr(os, "sysconf", lambda name: 1 << 20 if "PAGES" in name else 80)
    read_ahead._read([tmp_path / "a", tmp_path / "missing", tmp_path / "b", tmp_path / "c"])
    assert read == [("a", 0), ("a", 8 << 20), ("a", 16 << 20), ("b", 0), ("b", 8 << 20)], "40 MiB of 80"


def test_what_is_in_memory_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sizes, buffer = tmp_path / "a", [], bytearray(1 << 20)
    file.write_bytes(bytes(1 << 20))
    plain_read = os.preadv

    def noted(descriptor: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        sizes.append(len(buffers[0]))
        return plain_read(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", noted)
    read_ahead._read_piece(file, 0, buffer)
    assert max(sizes) <= 1, "a file that was just written is in the page cache"


def test_the_builders_list_names_what_a_start_imports() -> None:
    command = [sys.executable, "-m", "builder.list_start_files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert all(Path(file).is_file() for file in listed) and len(listed) == len(set(listed)) > 1000
    for part in ("libtorch_cpu.so", "/torch/", "/diffusers/", "worker/runtime/"):
        assert any(part in file for file in listed), part
