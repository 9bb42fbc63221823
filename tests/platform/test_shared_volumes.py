"""Workers that fill one cache: one is killed or frozen half way, those after it have the whole file, and soon."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers import civitai_site, local_hub
from tests.helpers.civitai_site import Published, Site
from tests.helpers.python_path import python_path

ROOT = Path(__file__).parents[2]
IDLE_S = 1.0  # for which another's lock is waited for while nothing comes
SOON_S = 60.0
BYTES_PER_S = 400_000
# Fetches a file from the hub, or from Civitai, as a start and a job do, and says what it has.
FETCH = """
import hashlib, sys
from pathlib import Path
from worker import http
from worker.models import civitai, file_download, hub_transfers
from worker.models.hub import download
from worker.settings import Settings

kind, place, token, idle = sys.argv[1:]
hub_transfers.IDLE_S = file_download.IDLE_S = float(idle)
hub_transfers.POLL_S = file_download.POLL_S = 0.05
http.is_public = lambda ip: True
civitai.SITES = {"civitai.com": place}
civitai.FOLDERS = (Path("civitai"), Path("civitai"))
print("begins", flush=True)
if kind == "hub":
    file = download(place, "style.safetensors", {"revision": None, "token": token, "cache_dir": Path("hub")})
else:
    file = Path(civitai.fetch_place("https://civitai.com/api/download/models/1", Settings()))
print(hashlib.sha256(file.read_bytes()).hexdigest(), flush=True)
"""


@dataclass
class Volume:
    """A folder that workers share, and what fills it.

    Attributes:
        kind: hub or civitai.
        place: of the site, or the name of the repository.
        sha256: of the file.
    """

    kind: str
    folder: Path
    place: str
    sha256: str
    environment: dict[str, str]

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[str]]:
        """One that wants the file; killed at the end, if it is still there."""
        command = [sys.executable, "-c", FETCH, self.kind, self.place, local_hub.TOKEN, str(IDLE_S)]
        with subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None and process.stdout.readline() == "begins\n"
                yield process
            finally:
                process.kill()

    def wait_until_half_way(self) -> None:
        """Until somebody has begun with the file."""
        pattern = "*.incomplete" if self.kind == "hub" else ".*.partial"
        deadline = time.monotonic() + SOON_S
        while not list(self.folder.rglob(pattern)):
            assert time.monotonic() < deadline, "nobody has begun"
            time.sleep(0.02)
        time.sleep(0.2)

    def has_whole(self, process: "subprocess.Popen[str]") -> bool:
        """Whether this worker ends soon, and has read the whole file."""
        told, _ = process.communicate(timeout=SOON_S)
        return process.returncode == 0 and told.strip() == self.sha256

    def finished(self) -> list[Path]:
        """Files that look finished to whoever comes."""
        return [path for path in self.folder.rglob("*.safetensors") if not path.name.startswith(".")]


@pytest.fixture(params=["hub", "civitai"])
def volume(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    published, folder = tmp_path / "published", tmp_path / "volume"
    published.mkdir()
    folder.mkdir()
    save_file({"weight": np.arange(150_000, dtype=np.float32)}, published / "style.safetensors")
    body = (published / "style.safetensors").read_bytes()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**kept, "PYTHONPATH": python_path(ROOT), "HF_HOME": str(folder)}
    with ExitStack() as stack:
        if request.param == "hub":
            hub = stack.enter_context(local_hub.serve(published, BYTES_PER_S))
            environment["HF_ENDPOINT"], place = hub.url, local_hub.REPOSITORY
        else:
            site = Site({1: [Published("style.safetensors", body)]}, piece=BYTES_PER_S // 20)
            place = stack.enter_context(civitai_site.serving(site, tmp_path, monkeypatch)).origin
        yield Volume(request.param, folder, place, hashlib.sha256(body).hexdigest(), environment)


def test_one_is_killed_half_way(volume: Volume) -> None:
    with volume.worker() as first:
        volume.wait_until_half_way()
        first.kill()
        first.wait()
        assert volume.finished() == [], "half of a file looks like none"
        with volume.worker() as second:
            assert volume.has_whole(second)


def test_one_is_frozen_half_way_and_does_no_harm_when_it_goes_on(volume: Volume) -> None:
    with volume.worker() as first:
        volume.wait_until_half_way()
        first.send_signal(signal.SIGSTOP)
        with volume.worker() as second:
            assert volume.has_whole(second)
        (file,) = volume.finished()
        first.send_signal(signal.SIGCONT)
        assert volume.has_whole(first)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == volume.sha256
