"""A volume that does not answer, fails or is full, and files that change in mid-read: named, and not waited for."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from worker import files
from worker.errors import InvalidInputError, JobCancelledError, ModelError, SettingsError
from worker.files import DiskError, copy_to_memory, read_file, settle_temporary_folder, temporary_folder
from worker.images.load import PictureRules, read_picture
from worker.models import hub
from worker.models.adapters import find_adapters
from worker.models.hub import make_lora_fetcher
from worker.models.locate import find_model
from worker.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
STALL_S = 0.5


@pytest.fixture
def stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a network volume that answers nobody any more; who asks it waits until the test is over."""
    over = threading.Event()
    volume = tmp_path / "volume"
    volume.mkdir()
    save_file({"weight": np.ones(8, np.float32)}, volume / "a.safetensors")

    def wait(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any, *rest: Any, **named: Any) -> Any:
            if str(path).startswith(str(volume)):
                over.wait(60)
            return ask(path, *rest, **named)

        return asked

    for name in ("stat", "lstat", "open", "listdir", "scandir"):
        monkeypatch.setattr(files.os, name, wait(getattr(os, name)))
    monkeypatch.setattr(files, "STALL_S", STALL_S)
    yield volume
    over.set()


def test_at_start_the_setting_and_the_path_are_named(stalled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=f"^{stalled} does not answer: nothing has come from its disk or volume for"):
        find_model(str(stalled))
    monkeypatch.setenv("LORA_DIR", str(stalled))
    with pytest.raises(SettingsError, match=f"LORA_DIR: got '{stalled}'; .*it does not answer"):
        read_settings()
    with pytest.raises(ModelError, match=f"^LORA_DIR: {stalled.parent} does not answer"):
        find_adapters(Settings(model_name="x", lora_dir=stalled.parent))


def test_a_cache_on_it_is_named_and_not_passed_over(stalled: Path) -> None:
    """The download would go to the same volume."""
    with pytest.raises(ModelError, match=f"^{stalled} does not answer"):
        find_model("org/name", caches={"the network volume": stalled})


def test_a_job_is_told_and_the_next_file_is_read(stalled: Path) -> None:
    with pytest.raises(ModelError, match=r"a\.safetensors does not answer"):
        make_lora_fetcher(Settings(model_name="x"))(str(stalled / "a.safetensors"))
    save_file({"weight": np.ones(8, np.float32)}, stalled.parent / "b.safetensors")
    assert make_lora_fetcher(Settings(model_name="x"))(str(stalled.parent / "b.safetensors")).exists()


def test_a_picture_on_it_is_told_under_its_field(stalled: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"image: got 'volume:a\.png'; the file does not answer"):
        read_picture("image", "volume:a.png", PictureRules(volume=stalled))


def test_nobody_waits_for_a_job_that_nobody_wants(stalled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STALL_S", 1_000.0)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise JobCancelledError("the job was cancelled")

    with pytest.raises(JobCancelledError):
        read_picture("image", "volume:a.png", PictureRules(volume=stalled, check=check))


def test_a_disk_that_is_slow_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is how long nothing comes, not how long it takes in all."""
    monkeypatch.setattr(files, "STALL_S", STALL_S)
    monkeypatch.setattr(files, "_PIECE_BYTES", 1)
    pause = threading.Event()
    patch_reads(monkeypatch, lambda file: pause.wait(0.15))
    (tmp_path / "x").write_bytes(b"slowly")
    assert read_file(tmp_path / "x", 100) == b"slowly"


def patch_reads(monkeypatch: pytest.MonkeyPatch, before: Callable[[FileIO], object]) -> None:
    """Have this happen before each piece of a file is read."""

    class Disk(FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            before(self)
            return super().read(size)

    monkeypatch.setattr(files, "FileIO", Disk)


CHANGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: os.truncate(path, 0),
    "shorter": lambda path: os.truncate(path, 5),
    "longer": lambda path: path.write_bytes(bytes(30)),
    "other bytes": lambda path: path.write_bytes(bytes(10)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_in_mid_read_is_named(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    os.utime(path, ns=(0, 0))
    reads = 0

    def act(_: FileIO) -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            CHANGES[change](path)

    monkeypatch.setattr(files, "_PIECE_BYTES", 2)
    patch_reads(monkeypatch, act)
    with pytest.raises(DiskError, match=f"^{path} was changed while it was read$"):
        read_file(path, 100)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_disk_that_fails_in_mid_read_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: FileIO) -> None:
        raise OSError(number, os.strerror(number))

    patch_reads(monkeypatch, fail)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DiskError, match=f"^{tmp_path / 'a.png'} cannot be read: {os.strerror(number)}$"):
        read_file(tmp_path / "a.png", 100)
    with pytest.raises(InvalidInputError, match=f"image: .*; the file cannot be read: {os.strerror(number)}"):
        read_picture("image", "volume:a.png", PictureRules(volume=tmp_path))


def test_what_was_copied_to_memory_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789" * 1_000)
    with copy_to_memory(path, 10_000) as copy:
        os.truncate(path, 0)
        path.unlink()
        assert copy.read_bytes() == b"0123456789" * 1_000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_download_that_finds_no_room_names_the_folder(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(hub, "fetch_file", fail)
    with pytest.raises(ModelError, match=f"org/name .*: {tmp_path} cannot be written: {os.strerror(number)}$"):
        hub.download("org/name", "x.safetensors", {"revision": None, "token": None, "cache_dir": tmp_path})


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder for temporary files that Python knows of can be written: the root is read-only, or full."""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_without_a_temporary_folder_memory_takes_its_place(
    no_room: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "IN_MEMORY", str(tmp_path))
    assert str(tmp_path) in str(settle_temporary_folder())
    assert Path(tempfile.gettempdir()) == tmp_path, "what libraries are told"
    with temporary_folder() as folder:
        (folder / "x").write_text("x")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_without_any_place_it_is_said_what_to_set(no_room: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "IN_MEMORY", "/proc")
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    assert "set TMPDIR" in str(settle_temporary_folder())
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(files.UnreadableError, match="set TMPDIR"), temporary_folder():
        pass


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("place", ["a full disk", "a pipe that nobody reads"])
def test_a_log_that_is_not_taken_ends_nothing(stream: str, place: str) -> None:
    script = (
        "import sys; from worker.runtime.output_streams import keep_output_from_failing\n"
        "keep_output_from_failing()\n"
        f"for number in range(3): print('x' * 100_000, '\\ud800', file=sys.{stream}, flush=True)\n"
        f"print('it goes on', file=sys.{'stderr' if stream == 'stdout' else 'stdout'})"
    )
    if place == "a full disk":
        lost = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, lost = os.pipe()
        os.close(reader)
    others: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: lost}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, **others)
    os.close(lost)
    assert done.returncode == 0
    assert (done.stderr if stream == "stdout" else done.stdout) == "it goes on\n"


def test_output_that_is_taken_is_whole() -> None:
    script = (
        "from worker.runtime.output_streams import keep_output_from_failing; keep_output_from_failing()\n"
        "print('ä' * 300_000)"
    )
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", script], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode() == "ä" * 300_000 + "\n"
