"""Every family of today on a GPU, and every model that edits: graphs draw what passes draw as they are written, to the
bit; a picture in a batch is very nearly itself alone, and so is one whose model is laid out to be compiled."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image

from tests.helpers import tiny_editors, tiny_models
from tests.helpers.drawing import decibels, scene, uri
from tests.helpers.faults import a_worker, engine_of
from tests.helpers.passes_on_a_gpu import ASK_THE_CPU
from tests.helpers.through_handler import ask, open_picture
from tests.pipeline.test_editing_equals_diffusers import CALL, EDITORS
from tests.pipeline.test_families_of_today import CASES, SIZE
from worker.runtime.worker import Worker

LEAST = {"float16": 50.0, "bfloat16": 35.0}  # decibels
WITHOUT_GRAPHS = (*ASK_THE_CPU, "z-image-omni")  # the latter lists tokens of pictures of several sizes
ALONE = {"MAX_BATCH": "1"}
TOGETHER = {"MAX_BATCH": "4", "ACCELERATION": "off"}


@pytest.mark.parametrize("family", CASES)
def test_a_family(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES[family]
    folder = tiny_models.save(case.make(), tmp_path / case.name)
    check_ways(family, folder, {**SIZE, **case.asked})
    assert is_captured(caplog.text) != family.startswith(WITHOUT_GRAPHS)


@pytest.mark.parametrize("name", EDITORS)
def test_an_editor(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tiny_editors.small_references():
        folder = tiny_models.save(EDITORS[name][0](), tmp_path / name)
        check_ways(f"{name} edits", folder, {**CALL, "image": uri(scene(80, 112))})
    assert is_captured(caplog.text) != name.startswith(WITHOUT_GRAPHS)


def is_captured(log: str) -> bool:
    """Whether all kinds of the denoiser's passes are."""
    assert log, "else nothing is heard"
    return "no graph" not in log and re.search("denoiser of .*: by a graph", log) is not None


def check_ways(name: str, folder: Path, job: dict[str, Any]) -> None:
    """This job of several pictures by graphs, drawn together, and with weights laid out for compiled passes, beside
    itself as written and alone.
    """
    with drawing(folder, job, **ALONE, ACCELERATION="off") as (worker, draw):
        written, dtype = draw(), str(engine_of(worker).pipeline.dtype).removeprefix("torch.")
    with drawing(folder, job, **ALONE, ACCELERATION="graphs") as (_, draw):
        for _ in range(2):
            graphed = draw()
    with drawing(folder, job, **TOGETHER) as (_, draw):
        together = draw()
    with drawing(folder, job, **ALONE, ACCELERATION="compile", WARM_UP="off") as (_, draw):
        laid_out = draw()
    near, laid = ([decibels(*pair) for pair in zip(ours, written, strict=True)] for ours in (together, laid_out))
    print(f"\n{name} in {dtype}, least: {min(near):.1f} dB four at once, {min(laid):.1f} laid out")
    assert [one.tobytes() for one in graphed] == [one.tobytes() for one in written]
    assert min(*near, *laid) > LEAST[dtype]


@contextmanager
def drawing(folder: Path, job: dict[str, Any], **settings: str) -> Iterator[tuple[Worker, Callable[[], list[Image]]]]:
    """A worker with this model, and how it draws four pictures."""
    with a_worker(MODEL_NAME=str(folder), **settings) as worker:
        logging.getLogger("worker").propagate = True  # to who looks at what it says of graphs

        def draw() -> list[Image]:
            answer = ask(worker, {"prompt": "a red circle", "seed": 7, "num_images": 4}, job)
            assert "error" not in answer, answer
            return [open_picture(one) for one in answer["images"]]

        yield worker, draw
