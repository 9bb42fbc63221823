"""For the tests of the image: built once for all of them, in one temporary folder, and only where that can be."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import tiny_models
from tests.helpers.local_hub import serve
from tests.image.building import Buildah, Container, build, make_base


def pytest_collection_modifyitems() -> None:
    """End the run where the image cannot be built."""
    missing = [tool for tool in ("buildah", "debootstrap", "unshare") if not shutil.which(tool)]
    missing += ["root"] if os.geteuid() != 0 else []
    if missing:
        pytest.exit(f"these tests need Debian 12 with root, buildah, debootstrap; missing: {', '.join(missing)}", 1)


@pytest.fixture(scope="session")
def container() -> Iterator[Container]:
    """The image, with a tiny model baked."""
    # Not pytest's own folders: those stay after the run, and this one has gigabytes.
    with tempfile.TemporaryDirectory(prefix="image-test-") as name:
        folder, buildah = Path(name), Buildah(Path(name))
        make_base(buildah, folder)
        with serve(tiny_models.save(tiny_models.sd1(), folder / "model")) as hub:
            started = time.perf_counter()
            build(buildah, folder, hub.url)
            print(f"built in {time.perf_counter() - started:.0f} s", flush=True)
        built = Container(buildah)
        sizes = [f"{part} {built.size(part):.2f}" for part in ("opt/venv", "opt/models", "app")]
        print(f"GB: all {built.size():.2f}, {', '.join(sizes)}", flush=True)
        yield built
