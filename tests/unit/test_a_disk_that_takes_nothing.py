"""The local test's folder on a disk that is full or read-only: an error that says so, and nothing half-written."""

import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.delivering import deliver_files
from worker.errors import DeliveryError
from worker.output import delivery
from worker.output.delivery import Delivery
from worker.output.encode import File
from worker.output.options import OutputOptions

SMALL, LARGE = File(b"small", "png"), File(b"large" * 100_000, "png")


def _deliver(*files: File) -> dict[str, Any]:
    return deliver_files(files, Delivery("job", True, OutputOptions(), 10_000_000, None))


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, which exists, in an otherwise empty working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs"


@pytest.fixture
def tiny_disk(outputs: Path) -> Iterator[Path | None]:
    """The folder as a disk of 64 KB; None where this process may not mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(outputs)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    yield outputs if mounted else None
    if mounted:
        subprocess.run(["umount", str(outputs)], check=True)


def test_the_full_device(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's own: every write to it fails as on a full disk."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Noon":
            return cls(2026, 1, 2, 12)

    monkeypatch.setattr(delivery, "datetime", Noon)
    (outputs / "20260102-120000-000000-1.png").symlink_to("/dev/full")
    with pytest.raises(DeliveryError, match="outputs cannot be written: No space left on device"):
        _deliver(SMALL, LARGE)
    assert list(outputs.iterdir()) == []


def test_a_disk_that_fills_up(tiny_disk: Path | None) -> None:
    if tiny_disk is None:
        return  # test_the_full_device says the same
    with pytest.raises(DeliveryError, match="outputs cannot be written: No space left on device"):
        _deliver(SMALL, LARGE)
    assert list(tiny_disk.iterdir()) == []
    assert len(_deliver(SMALL, SMALL)["images"]) == 2, "what was half-written has left room"


def test_a_read_only_folder(tiny_disk: Path | None, outputs: Path) -> None:
    if tiny_disk is not None:  # permissions do not stop root
        subprocess.run(["mount", "-o", "remount,ro", str(outputs)], check=True)
    else:
        outputs.chmod(0o500)
    with pytest.raises(DeliveryError, match=r"outputs cannot be written: (Read-only file system|Permission denied)"):
        _deliver(SMALL)
    assert list(outputs.iterdir()) == []
