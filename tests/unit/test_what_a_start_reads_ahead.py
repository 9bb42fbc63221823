"""A start reads ahead what it will need, in bounds, and nothing that keeps it from starting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from builder import list_start_files
from worker import read_ahead
from worker.settings import EMBEDDED_MODEL, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every piece that was read: a file's name and the offset."""
    pieces: list[tuple[str, int]] = []
    monkeypatch.setattr(read_ahead, "_read_piece", lambda piece, _: pieces.append((piece.file.name, piece.offset)))
    monkeypatch.setattr(read_ahead, "THREADS", 1)
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

    found = list(read_ahead._list_weights(settings))

    assert found == [tmp_path / "base" / "vae" / "model.safetensors", tmp_path / "model.safetensors"]


def test_the_embedded_model_has_weights_to_read() -> None:
    assert {file.parent.name for file in read_ahead.list_weights(EMBEDDED_MODEL, None)} >= {"unet", "vae"}


def test_the_image_lists_what_comes_before_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(5 << 20))
    monkeypatch.setattr(read_ahead, "MANIFEST", tmp_path / "start-files.txt")
    read_ahead.MANIFEST.write_text("0 300 /some/module.pyc\n8192 5242880 /with a space/library.so\n")

    found = list(read_ahead._list_pieces(Settings(model_name=str(weights))))

    assert found == [
        (Path("/some/module.pyc"), 0, 300),
        (Path("/with a space/library.so"), 8192, 4 << 20),
        (Path("/with a space/library.so"), 8192 + (4 << 20), 1 << 20),
        (weights, 0, 4 << 20),
        (weights, 4 << 20, 1 << 20),
    ]


def test_no_more_than_memory_allows(read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1 << 20 if "PAGES" in name else 80)  # MiB
    files = [("a", 20), ("missing", 0), ("b", 18), ("c", 20)]
    read_ahead._read(read_ahead.Piece(Path(name), 0, size << 20) for name, size in files)
    assert read == [("a", 0), ("missing", 0), ("b", 0)], "38 MiB of 40"


def test_thousands_of_small_files_leave_memory_for_weights(
    read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1 << 20 if "PAGES" in name else 80)  # MiB
    small = [read_ahead.Piece(Path("module.pyc"), 0, 1000)] * 6000
    read_ahead._read(iter([*small, read_ahead.Piece(Path("weights"), 0, 30 << 20)]))
    assert read[-1] == ("weights", 0)


def test_what_is_in_memory_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sizes, buffer = tmp_path / "a", [], bytearray(1 << 20)
    file.write_bytes(bytes(1 << 20))
    plain_read = os.preadv

    def noted(descriptor: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        sizes.append(len(buffers[0]))
        return plain_read(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", noted)
    read_ahead._read_piece(read_ahead.Piece(file, 0, 1 << 20), memoryview(buffer))
    assert max(sizes) <= 1, "a file that was just written is in the page cache"


@pytest.fixture(scope="module")
def listed() -> list[tuple[int, int, str]]:
    """What the builder's program prints: offset, size, path."""
    command = [sys.executable, "-m", "builder.list_start_files"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [(int(offset), int(size), file) for offset, size, file in (one.split(" ", 2) for one in said.splitlines())]


def test_the_builders_list_is_of_parts_that_are_there(listed: list[tuple[int, int, str]]) -> None:
    assert len(listed) == len(set(listed)) > 1000
    pages = os.sysconf("SC_PAGE_SIZE")  # a mapping ends with a page, a file before that
    assert all(0 <= offset < offset + size <= Path(file).stat().st_size + pages for offset, size, file in listed)


def test_the_builders_list_has_all_that_python_opens(listed: list[tuple[int, int, str]]) -> None:
    """Not modules alone: packages look into the files of others, each of which a disk would be waited for."""
    for part in ("libtorch_cpu.so", "/torch/", "/diffusers/", "worker/runtime/", ".dist-info/"):
        assert any(part in file for _, _, file in listed), part


def test_the_builders_list_has_of_a_library_what_is_used(listed: list[tuple[int, int, str]]) -> None:
    (file,) = {file for _, _, file in listed if file.endswith("libtorch_cpu.so")}
    used = sum(size for _, size, one in listed if one == file)
    assert 0 < used < Path(file).stat().st_size / 2


def test_where_the_system_does_not_tell_what_is_used_it_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    assert torch.__file__  # whose libraries are mapped, therefore
    monkeypatch.setattr(list_start_files, "open", refuse, raising=False)
    libraries = list_start_files._list_libraries()
    assert any("libtorch_cpu.so" in file for file in libraries)
    assert all(parts == [(0, Path(file).stat().st_size, file)] for file, parts in libraries.items())
