"""A job that edits stops where it is when nobody wants it, or its time is over, and leaves nothing to the next; what it
brings beside its pictures, LoRAs and seeds, acts as in plain diffusers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import tiny_addons, tiny_editors, tiny_glm, tiny_models
from tests.helpers.drawing import assert_same, scene, uri
from tests.helpers.faults import a_worker, engine_of
from tests.helpers.through_handler import ask, cancel_at, drawn, pixels
from worker.clock import CLOCK
from worker.runtime.worker import Worker

MAKERS = {
    "kontext": tiny_editors.kontext,
    "qwen-edit": tiny_editors.qwen_edit,
    "klein": tiny_editors.klein,
    "glm-image": tiny_glm.glm,
}
TIMEOUT_S = 600.0
MANY = 60  # steps
CALL: dict[str, Any] = {"prompt": "make it red", "width": 96, "height": 64, "num_inference_steps": 2}
JOB: dict[str, Any] = {**CALL, "seed": 7, "image": uri(scene())}

pytestmark = pytest.mark.usefixtures("small_references")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder with the model, and below `loras` its LoRAs, if it takes any."""
    root, made = tmp_path_factory.mktemp("editors"), {}
    for name, make in MAKERS.items():
        pipeline = make()
        made[name] = tiny_models.save(pipeline, root / name)
        if hasattr(pipeline, "load_lora_weights"):
            tiny_addons.lora(pipeline, root / name / "loras" / "mine.safetensors", seed=1)
    return made


def _loras(folder: Path) -> dict[str, str]:
    there = folder / "loras"
    return {"LORA_DIR": str(there)} if there.exists() else {}


@pytest.fixture(scope="module")
def workers(folders: dict[str, Path]) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                a_worker(MODEL_NAME=str(folder), **_loras(folder), JOB_TIMEOUT_S=f"{TIMEOUT_S:g}")
            )
            for name, folder in folders.items()
        }


@contextmanager
def at_third_call(worker: Worker, action: Callable[[], object]) -> Iterator[list[int]]:
    """The transformer's calls, the third of which does this first."""
    calls: list[int] = []

    def count(*_: object) -> None:
        calls.append(len(calls) + 1)
        if calls[-1] == 3:
            action()

    handle = engine_of(worker).pipeline.transformer.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize("name", MAKERS)
def test_a_cancel_in_mid_edit(name: str, workers: dict[str, Worker]) -> None:
    worker, before = workers[name], drawn(workers[name], JOB)

    calls = cancel_at(worker, {**JOB, "num_inference_steps": MANY}, lambda hold: at_third_call(worker, hold))

    assert len(calls) < MANY, "it went no further"
    assert_same(drawn(worker, JOB), before)


@pytest.mark.parametrize("name", MAKERS)
def test_a_deadline_in_mid_edit(name: str, workers: dict[str, Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    before, running_time, late = drawn(workers[name], JOB), CLOCK.running_time, [0.0]
    monkeypatch.setattr(CLOCK, "running_time", lambda: running_time() + late[0])

    with at_third_call(workers[name], lambda: late.append(late.pop() + TIMEOUT_S + 1)) as calls:
        answer = ask(workers[name], JOB, num_inference_steps=MANY)

    assert answer["code"] == "JOB_TIMEOUT" and "steps" in answer["message"]
    assert 3 <= len(calls) <= 4, "a step, of one pass or of two"
    assert drawn(workers[name], JOB).tobytes() == before.tobytes()


@pytest.mark.parametrize("name", ["kontext", "qwen-edit"])
def test_a_lora_acts_as_in_plain_diffusers_and_for_its_job_alone(
    name: str, folders: dict[str, Path], workers: dict[str, Worker]
) -> None:
    plain: Any = tiny_editors.load_plain(folders[name])
    plain.load_lora_weights(folders[name] / "loras", weight_name="mine.safetensors", adapter_name="mine")
    plain.set_adapters(["mine"], adapter_weights=[0.8])
    kontext, qwen = {"guidance_scale": 3.0, "max_area": 96 * 64}, {"true_cfg_scale": 3.0, "negative_prompt": " "}
    call = {**CALL, **(kontext if name == "kontext" else qwen), "image": scene()}
    theirs = plain(**call, generator=torch.Generator().manual_seed(7)).images[0]
    job = {**JOB, "guidance_scale": 3.0}
    without = drawn(workers[name], job)

    ours = drawn(workers[name], job, loras=[{"name": "mine", "scale": 0.8}])

    assert_same(ours, theirs)
    assert ours.tobytes() != without.tobytes() == drawn(workers[name], job).tobytes()


def test_each_of_many_pictures_is_that_of_its_prompt_and_seed_alone(workers: dict[str, Worker]) -> None:
    looking = {**CALL, "images": [uri(scene()), uri(scene(96, 64, seed=1))]}
    prompts, seeds = ["make it red", "make it blue"], [5, 2**32 + 6, 5, 9]

    answer = ask(workers["klein"], looking, prompt=prompts, num_images=2, seed=seeds)

    assert (answer["seeds"], answer["references"]) == ([5, 6, 5, 9], 2)
    alone = [
        ask(workers["klein"], looking, prompt=prompts[place // 2], seed=seed)["images"][0]
        for place, seed in enumerate(answer["seeds"])
    ]
    assert [pixels(one) for one in answer["images"]] == [pixels(one) for one in alone]
    assert len({pixels(one) for one in alone}) == 4
