"""What also happens to a request known to be good, or a device fault: then, and only then, the worker leaves."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.helpers.faults import Answer, a_worker, as_if_fresh, engine_of, giving, is_open, last_layer, raising, run
from tests.helpers.tiny_addons import Kits
from worker import request as requests
from worker.engine import self_test
from worker.engine.adapters import loras
from worker.runtime import loaded_model
from worker.runtime.worker import Worker


@pytest.fixture(scope="module")
def environment(kits: Kits) -> dict[str, str]:
    """Of a tiny Stable Diffusion 1 with LoRAs."""
    return kits["sd1"].settings("loras")


@pytest.fixture(scope="module")
def loaded(environment: dict[str, str]) -> Iterator[Worker]:
    """Such a worker."""
    with a_worker(**environment) as worker:
        yield worker


@pytest.fixture
def worker(loaded: Worker) -> Iterator[Worker]:
    """It, as if fresh: nothing has failed yet, and what a device fault leaves behind does not stay."""
    with as_if_fresh(loaded) as worker:
        yield worker


def a_bug(worker: Worker) -> Answer:
    with raising(last_layer(engine_of(worker), "denoiser"), lambda: KeyError("a bug"), at=2) as fault:
        answer = run(worker)
    assert fault.happened
    return answer


def no_memory(worker: Worker) -> Answer:
    with raising(last_layer(engine_of(worker), "decoder"), MemoryError, times=2):
        return run(worker)


def no_numbers(worker: Worker) -> Answer:
    with giving(last_layer(engine_of(worker), "denoiser"), math.nan, lambda call, _: call == 4):
        return run(worker)


def success(worker: Worker) -> Answer:
    return run(worker)


def refused(worker: Worker) -> Answer:
    return run(worker, steps=-1)


def too_late(worker: Worker) -> Answer:
    limits = worker.model.settings
    worker.model.settings = limits.model_copy(update={"job_timeout_s": 1e-6})
    try:
        return run(worker)
    finally:
        worker.model.settings = limits


def too_large(worker: Worker) -> Answer:
    limits = worker.model.settings
    worker.model.settings = limits.model_copy(update={"max_result_bytes": 1_000})
    try:
        return run(worker, output_format="png")
    finally:
        worker.model.settings = limits


CODES: dict[Callable[[Worker], Answer], str | None] = {
    a_bug: "INTERNAL_ERROR",
    no_memory: "OUT_OF_MEMORY",
    no_numbers: "NON_FINITE_OUTPUT",
    success: None,
    refused: "INVALID_INPUT",
    too_late: "JOB_TIMEOUT",
    too_large: "RESULT_TOO_LARGE",
}


def codes(worker: Worker, *jobs: Callable[[Worker], Answer]) -> list[str | None]:
    found = []
    for job in jobs:
        assert is_open(worker)
        answer = job(worker)
        assert answer.get("refresh_worker", False) is (answer.get("code") == "WORKER_BROKEN")
        found.append(answer.get("code"))
    return found


@pytest.mark.parametrize("failing", [a_bug, no_memory, no_numbers])
def test_however_often_jobs_fail_where_a_good_request_is_drawn_it_stays(failing: Any, worker: Worker) -> None:
    assert codes(worker, *[failing] * 3, success) == [CODES[failing]] * 3 + [None]
    assert is_open(worker)


def test_what_is_not_the_workers_fault_changes_nothing(worker: Worker) -> None:
    jobs = (a_bug, refused, no_memory, too_late, no_numbers, too_large, success)
    assert codes(worker, *jobs) == [CODES[job] for job in jobs]
    assert is_open(worker)


def undecided(worker: Worker) -> Answer:
    """A bug, and a proof that takes longer than it may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_test, "MAX_SELF_TEST_S", 0.0)
        return a_bug(worker)


def test_where_the_proof_takes_too_long_the_next_job_decides(worker: Worker) -> None:
    proved = [undecided, success, undecided, a_bug, undecided]
    assert codes(worker, *proved) == ["INTERNAL_ERROR", None, "INTERNAL_ERROR", "INTERNAL_ERROR", "INTERNAL_ERROR"]
    assert codes(worker, refused, undecided) == ["INVALID_INPUT", "WORKER_BROKEN"]
    assert not is_open(worker)


def test_a_job_that_cannot_be_encoded_is_no_reason_to_leave_if_others_can(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = loaded_model.encode

    def fail(*inputs: Any) -> Any:
        if "unfortunate" in inputs[1]:
            raise KeyError("a bug")
        return encode(*inputs)

    monkeypatch.setattr(loaded_model, "encode", fail)
    assert [run(worker, prompt="unfortunate")["code"] for _ in range(3)] == ["INTERNAL_ERROR"] * 3
    assert "images" in run(worker)
    assert is_open(worker)


def test_where_no_picture_can_be_encoded_it_leaves(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(loaded_model, "encode", fail)
    assert run(worker)["code"] == "WORKER_BROKEN"
    assert not is_open(worker)


@pytest.mark.parametrize(("drawn_before", "code"), [(True, "WORKER_BROKEN"), (False, "OUT_OF_MEMORY")])
def test_memory_that_is_gone_shows_at_a_size_that_was_drawn(
    drawn_before: bool, code: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SELF_TEST_SIDE", 32)
    monkeypatch.setattr(worker.model.replicas[0], "_known_good", None)
    if drawn_before:
        assert "images" in run(worker)

    def fill(_: Any, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].shape[-1] == 64:
            raise MemoryError

    handle = last_layer(engine_of(worker), "decoder").register_forward_pre_hook(fill)
    try:
        assert run(worker)["code"] == code
    finally:
        handle.remove()
    assert is_open(worker) is not drawn_before


def test_out_of_memory_once_is_a_success(worker: Worker) -> None:
    def spared(worker: Worker) -> Answer:
        with raising(last_layer(engine_of(worker), "decoder"), MemoryError):
            return run(worker)

    assert codes(worker, undecided, spared, undecided) == ["INTERNAL_ERROR", None, "INTERNAL_ERROR"]


def test_a_proof_that_fails(worker: Worker) -> None:
    with raising(last_layer(engine_of(worker), "denoiser"), lambda: KeyError("a bug"), at=2, times=100) as fault:
        answer = run(worker)
    assert fault.happened == 2, "the job, and the proof"
    assert answer["code"] == "WORKER_BROKEN" and answer["refresh_worker"] is True
    assert "KeyError" in answer["error"] and "a bug" not in answer["error"]
    assert not is_open(worker)


def test_a_device_fault_is_not_repaired(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)
    layer = last_layer(engine_of(worker), "denoiser")
    monkeypatch.setattr(type(engine_of(worker)), "repair", lambda _: pytest.fail("nothing can be repaired"))
    with raising(layer, lambda: error, times=100) as fault:
        answer = run(worker)
    assert fault.happened == 1, "nothing was drawn after it"
    assert answer["code"] == "WORKER_BROKEN" and answer["refresh_worker"] is True
    assert not is_open(worker)


def test_a_device_fault_while_a_lora_is_loaded_is_not_called_a_bad_file(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)

    monkeypatch.setattr(loras, "add_adapter", fail)
    assert run(worker, lora="plain")["code"] == "WORKER_BROKEN"
    assert not is_open(worker)


def test_the_owners_limits_are_none_for_the_proof(environment: dict[str, str]) -> None:
    """One step is too few for the default scheduler, with which the proof is drawn."""
    with a_worker(**environment, MAX_STEPS="1", DEFAULT_SCHEDULER="LMS") as worker:
        with raising(last_layer(engine_of(worker), "denoiser"), lambda: KeyError("a bug")) as fault:
            answer = run(worker, num_inference_steps=1, scheduler="Euler")
        assert fault.happened
        assert answer["code"] == "INTERNAL_ERROR", answer
