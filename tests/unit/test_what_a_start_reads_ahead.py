"""A start reads ahead what it will need, in bounds, and nothing that keeps it from starting."""

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "damaged",
    ["/of/another/form.so", "", "\0" * 40, "0 12", "8192 -1 /no/size", f"{2**70} 9 /far.so", "0 9 /\0"],
    ids=["another form", "empty", "zeros", "cut off", "no size", "beyond all files", "no name"],
)
def test_a_line_that_is_damaged_costs_no_other(
    damaged: str, tmp_path: Path, read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "MANIFEST", tmp_path / "start-files.txt")
    monkeypatch.setattr(read_ahead, "find_free_main_memory", lambda: 1 << 30)
    read_ahead.MANIFEST.write_bytes(f"0 5 /a.pyc\n{damaged}\n0 5 /".encode() + b"\xe9.pyc\n")
    read_ahead._read(read_ahead._list_pieces(Settings(model_name=str(tmp_path / "model.safetensors"))))
    assert ("a.pyc", 0) in read and ("\udce9.pyc", 0) in read


def test_no_more_than_memory_allows(read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "find_free_main_memory", lambda: 80 << 20)
    files = [("a", 20), ("missing", 0), ("b", 18), ("c", 20)]
    read_ahead._read(read_ahead.Piece(Path(name), 0, size << 20) for name, size in files)
    assert read == [("a", 0), ("missing", 0), ("b", 0)], "38 MiB of 40"


def test_thousands_of_small_files_leave_memory_for_weights(
    read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "find_free_main_memory", lambda: 80 << 20)
    small = [read_ahead.Piece(Path("module.pyc"), 0, 1000)] * 6000
    read_ahead._read(iter([*small, read_ahead.Piece(Path("weights"), 0, 30 << 20)]))
    assert read[-1] == ("weights", 0)


def test_a_piece_is_read_from_where_it_begins_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_is_in_memory", lambda *_: False)
    file, buffer = tmp_path / "a", bytearray(8)
    file.write_bytes(b"0123456789")
    read_ahead._read_piece(read_ahead.Piece(file, 3, 4), memoryview(buffer))
    assert bytes(buffer) == b"3456\0\0\0\0"


@pytest.mark.parametrize("there", [True, False], ids=["a GPU", "no GPU"])
def test_where_there_is_a_gpu_a_start_reads(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk was asked for, in the end: the embedded model's weights, of a start that was told nothing else."""
    pieces: list[read_ahead.Piece] = []
    monkeypatch.setattr(read_ahead, "_GPU", tmp_path if there else tmp_path / "missing")
    monkeypatch.setattr(read_ahead, "_read_piece", lambda piece, _: pieces.append(piece))
    read_ahead.begin_to_read()
    for thread in threading.enumerate():
        if thread.name == "read-ahead":
            thread.join()
    assert any(piece.file.is_relative_to(EMBEDDED_MODEL) for piece in pieces) == there


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


def test_the_builders_list_has_our_modules_and_what_packages_open(listed: list[tuple[int, int, str]]) -> None:
    """Packages look into the files of others, for each of which a disk would be waited for."""
    whole = {file for offset, size, file in listed if offset == 0 and size == Path(file).stat().st_size}
    command = [sys.executable, "-c", "import worker.runtime.worker, sys; print(*sys.modules)"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ours = {name: find_spec(name) for name in names if name.startswith("worker.")}
    assert len(ours) > 100
    assert [name for name, spec in ours.items() if spec is None or not {spec.cached, spec.origin} & whole] == []
    for part in ("/torch/nn/modules/", "/diffusers/models/", "/transformers/models/clip/", ".dist-info/"):
        assert any(part in file for file in whole), part


def test_the_builders_list_has_of_a_library_what_is_used(listed: list[tuple[int, int, str]]) -> None:
    (file,) = {file for _, _, file in listed if file.endswith("libtorch_cpu.so")}
    used = sum(size for _, size, one in listed if one == file)
    assert 1 << 20 < used < Path(file).stat().st_size / 2


@pytest.fixture
def library(tmp_path: Path) -> Iterator[tuple[Path, mmap.mmap]]:
    """16 MiB of which the last 12 are mapped, and nothing of them is in this process's memory yet."""
    file = tmp_path / "a library.so"
    file.write_bytes(bytes(16 << 20))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 12 << 20, prot=mmap.PROT_READ, offset=4 << 20) as mapped:
        yield file, mapped


def test_pages_that_were_touched_are_parts(library: tuple[Path, mmap.mmap]) -> None:
    file, mapped = library
    touched = [1 << 20, (1 << 20) + (200 << 10), 8 << 20]
    assert [mapped[offset] for offset in touched] == [0, 0, 0]
    parts = list_start_files._list_libraries()[str(file)]
    assert len(parts) == 2, "the first two are near each other"
    for offset in touched:
        assert any(start <= offset + (4 << 20) < start + size for start, size, _ in parts)
    assert sum(size for _, size, _ in parts) <= 4 << 20, "a system brings 2 MiB at once, at most"


def test_where_the_system_does_not_tell_what_is_used_it_is_the_whole(
    library: tuple[Path, mmap.mmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    assert list_start_files._list_libraries()[str(library[0])] == [(0, 16 << 20, str(library[0]))], "nothing is touched"
    monkeypatch.setattr(list_start_files, "open", refuse, raising=False)
    libraries = list_start_files._list_libraries()
    assert len(libraries) > 10
    assert all(parts == [(0, Path(file).stat().st_size, file)] for file, parts in libraries.items())


def test_what_torch_opens_where_there_is_a_gpu_is_listed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = tmp_path / "torch" / "__init__.py"
    names = (
        "nvidia/cudnn/lib/libcudnn_ops.so.9",
        "nvidia/cu13/lib/libcublasLt.so.13",
        "nvidia/cu13/lib/libcufft.so.12",
    )
    for file in (torch, *(tmp_path / name for name in names)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(list_start_files, "find_spec", lambda _: ModuleSpec("torch", None, origin=str(torch)))
    assert list(list_start_files._list_later()) == [str(tmp_path / name) for name in names[:2]]
