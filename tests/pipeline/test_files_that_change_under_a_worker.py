"""What happens to a file after it was read changes nothing that is drawn, and does not end the process.

Libraries map files into memory: a process that reads of one that has become shorter meanwhile is ended on the spot.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_addons
from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.odd_paths import ODD_PATHS, put
from tests.helpers.tiny_addons import noise, uri
from worker.engine.engine import Engine
from worker.errors import ModelError

EVERYTHING: dict[str, Any] = {
    "prompt": "a wobble dot",
    "loras": ["wordy"],
    "controlnet": {"name": "edges", "image": uri(noise(1))},
    "ip_adapter": {"image": uri(noise(2))},
    "num_inference_steps": 2,
}
PLAIN: dict[str, Any] = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> tiny_addons.Kit:
    """A model with all there is beside it, whose files are these tests' own to spoil."""
    return tiny_addons.kit("sd1", tmp_path_factory.mktemp("spoiled"))


@pytest.fixture(scope="module")
def engine(kit: tiny_addons.Kit) -> Engine:
    """All of it, loaded while it was whole."""
    return load_engine(**kit.settings("loras", "controlnets", "ip_adapter", "words"))


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_a_lora_that_is_no_file_any_more_fails_its_job_alone(kind: str, engine: Engine, kit: tiny_addons.Kit) -> None:
    before = picture(engine, **PLAIN)
    file = kit.loras / "plain.safetensors"
    words = put(kind, file)
    with pytest.raises(ModelError, match=f"^{file} {words}$"):
        picture(engine, loras=["plain"], **PLAIN)
    assert_same(picture(engine, **PLAIN), before)


def test_files_that_are_cut_short_after_they_were_read_change_no_picture(engine: Engine, kit: tiny_addons.Kit) -> None:
    """Run last: all files are spoiled."""
    before = picture(engine, **EVERYTHING)
    folder = kit.model.parent
    mapped = Path("/proc/self/maps")
    if mapped.exists():  # on Linux; a page of what is still mapped would end the tests, too
        assert str(folder) not in mapped.read_text()
    for file in folder.rglob("*.safetensors"):
        if file.is_file():
            os.truncate(file, 8)
    assert_same(picture(engine, **EVERYTHING), before)
