"""Several GPUs in one process: the pictures of one, whoever draws which; and nothing lost when one of them fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from tests.gpu.test_accelerated_passes import decibels
from tests.helpers.every_kind import JOBS
from tests.helpers.faults import Answer, a_worker, is_open, last_layer, raising, run
from tests.helpers.through_handler import open_picture
from tests.helpers.tiny_addons import Kits
from worker.engine import memory
from worker.engine.memory_plan import DENOISE, RESERVE
from worker.engine.pipelines import modules
from worker.runtime.worker import Worker

CARDS = torch.cuda.device_count()
SAME_DB = 50.0  # fp16; see docs/several-jobs.md
PARTS = ("loras", "controlnets", "ip_adapter")
FEW: dict[str, Any] = {"num_inference_steps": 6}

pytestmark = pytest.mark.skipif(CARDS < 2, reason="this machine has one GPU")


def _pictures(answer: Answer) -> list[np.ndarray[Any, Any]]:
    assert "error" not in answer, answer
    return [np.asarray(open_picture(one), np.float64) for one in answer["images"]]


def _assert_same(found: Answer, expected: Answer) -> None:
    for one, other in zip(_pictures(found), _pictures(expected), strict=True):
        assert decibels(one, other) >= SAME_DB


@pytest.fixture(scope="module", params=["off", "graphs"])
def worker(request: pytest.FixtureRequest, kits: Kits) -> Iterator[Worker]:
    """One on all cards."""
    with a_worker(**kits["sd1"].settings(*PARTS), ACCELERATION=request.param, DTYPE="float16") as worker:
        yield worker


@pytest.fixture(scope="module")
def alone(kits: Kits) -> list[Answer]:
    """What one card draws."""
    with a_worker(**kits["sd1"].settings(*PARTS), ACCELERATION="off", DTYPE="float16", GPUS="1") as worker:
        return [run(worker, **{**FEW, "num_images": 2 * CARDS, **job}) for job in JOBS]


def test_every_kind_of_job(worker: Worker, alone: list[Answer]) -> None:
    assert len(worker._replicas) == CARDS
    for _ in range(2):
        for job, expected in zip(JOBS, alone, strict=True):
            _assert_same(run(worker, **{**FEW, "num_images": 2 * CARDS, **job}), expected)


def test_all_of_them_at_once(worker: Worker, alone: list[Answer]) -> None:
    with ThreadPoolExecutor(len(JOBS)) as callers:
        found = callers.map(lambda job: run(worker, **{**FEW, "num_images": 2 * CARDS, **job}), JOBS)
        for one, expected in zip(found, alone, strict=True):
            _assert_same(one, expected)


def test_one_picture_of_two_cards(kits: Kits) -> None:
    settings = {**kits["sd1"].settings(*PARTS), "ACCELERATION": "graphs", "DTYPE": "float16"}
    jobs = [{**FEW, **job, "num_images": 1} for job in JOBS]
    with a_worker(**settings, GPUS="1") as worker:
        expected = [run(worker, **job) for job in jobs]
    with a_worker(**settings, GPUS="2", GPUS_PER_PICTURE="2") as worker:
        (replica,) = worker._replicas
        assert replica.engine.graphs is not None
        for _ in range(3):
            for job, one in zip(jobs, expected, strict=True):
                _assert_same(run(worker, **job), one)
        splits = [kind.split.milliseconds for kind in replica.engine.graphs._kinds.values() if kind.split]
    assert splits and all(np.isfinite(splits))


def test_weights_are_on_each_card(worker: Worker) -> None:
    for number, replica in enumerate(worker._replicas):
        devices = {one.device for one in replica.engine.pipeline.unet.parameters()}
        assert devices == {torch.device("cuda", number)}


def test_a_card_that_fails_costs_no_picture(kits: Kits) -> None:
    with a_worker(**kits["sd1"].settings(), GPUS="2") as worker:
        job = {**FEW, "num_images": 6}
        whole = run(worker, **job)
        fault = RuntimeError("CUDA error: an illegal memory access was encountered")
        layer = last_layer(worker._replicas[1].engine, "denoiser")
        with raising(layer, lambda: fault, at=2, times=10**6):
            _assert_same(run(worker, **job), whole)
        assert not is_open(worker)
        _assert_same(run(worker, **job), whole)


def test_a_model_larger_than_a_card_is_spread(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**kits["flux"].settings("loras"), "DTYPE": "bfloat16"}
    with a_worker(**settings, GPUS="1") as worker:
        expected = run(worker, **FEW, num_images=2)
        largest = sum(memory.weight_sizes([worker._engine.pipeline]).values())
        pixels = worker._engine.capabilities.width * worker._engine.capabilities.height
    room = RESERVE + pixels * DENOISE + largest * 9 // 10
    monkeypatch.setattr(memory, "free_memory", lambda _: room)
    with a_worker(**settings, GPUS="2") as worker:
        (replica,) = worker._replicas
        homes = {name: next(part.parameters()).device.index for name, part in modules(replica.engine.pipeline).items()}
        assert homes["transformer"] == 0 and 1 in homes.values(), homes
        for _ in range(2):
            _assert_same(run(worker, **FEW, num_images=2), expected)


def test_no_process_has_come(worker: Worker) -> None:
    run(worker, **FEW, num_images=CARDS)
    assert psutil.Process().children() == []
