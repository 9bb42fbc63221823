"""Several GPUs in one process: the pictures of one, whoever draws which; and nothing lost when one of them fails."""

import itertools
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
from worker.engine import memory, spread
from worker.engine.adapters.lora_file import adapter_name
from worker.engine.denoiser.cuda_graphs import Arguments, CudaDevice
from worker.engine.memory_plan import DENOISE, RESERVE
from worker.engine.pipelines import modules
from worker.runtime.worker import Worker

CARDS = torch.cuda.device_count()
SAME_DB = 50.0  # fp16; see docs/several-jobs.md
COMPILED_DB = 40.0
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
    assert len(worker.model.replicas) == CARDS
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
        (replica,) = worker.model.replicas
        assert replica.engine.graphs is not None
        for _ in range(3):
            for job, one in zip(jobs, expected, strict=True):
                _assert_same(run(worker, **job), one)
        splits = [kind.split.milliseconds for kind in replica.engine.graphs._kinds.values() if kind.split]
    assert splits and all(np.isfinite(splits))


def test_what_each_of_two_cards_does_is_compiled(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tried is said to be faster than all before: tiny models tell nothing of that."""
    clock, tried = CudaDevice.clock, itertools.count()
    monkeypatch.setattr(CudaDevice, "clock", lambda *given: (clock(*given)[0], 0.9 ** next(tried)))
    settings = {**kits["sd1"].settings(), "DTYPE": "float16"}
    often = {"num_inference_steps": 18}  # passes that are worth compiling
    with a_worker(**settings, ACCELERATION="off", GPUS="1") as worker:
        (expected,) = _pictures(run(worker, **often))
    compiled = {"ACCELERATION": "compile", "WARM_UP": "off", "GPUS": "2", "GPUS_PER_PICTURE": "2"}
    with a_worker(**settings, **compiled) as worker:
        for _ in range(3):
            (found,) = _pictures(run(worker, **often))
            assert decibels(found, expected) >= COMPILED_DB
            worker.settle()
        graphs = worker.model.replicas[0].engine.graphs
        assert graphs is not None
        assert [kind.split.mode for kind in graphs._kinds.values() if kind.split] == ["compile"]


def test_weights_are_on_each_card(worker: Worker) -> None:
    for number, replica in enumerate(worker.model.replicas):
        devices = {one.device for one in replica.engine.pipeline.unet.parameters()}
        assert devices == {torch.device("cuda", number)}


def test_each_draws_with_its_own_card_as_the_current_one(worker: Worker) -> None:
    """Some kernels ask for no other. What is before the decoder is in no graph."""
    seen: list[set[int]] = [set() for _ in worker.model.replicas]
    layers = [replica.engine.pipeline.vae.post_quant_conv for replica in worker.model.replicas]
    hooks = [
        layer.register_forward_pre_hook(lambda *_, number=number: seen[number].add(torch.cuda.current_device()))
        for number, layer in enumerate(layers)
    ]
    run(worker, **FEW, num_images=2 * CARDS)
    for hook in hooks:
        hook.remove()
    assert seen == [{number} for number in range(CARDS)]


def test_a_card_that_fails_costs_no_picture(kits: Kits) -> None:
    with a_worker(**kits["sd1"].settings(), GPUS="2", ACCELERATION="off") as worker:  # a graph calls no layer
        job = {**FEW, "num_images": 6}
        whole = run(worker, **job)
        fault = RuntimeError("CUDA error: an illegal memory access was encountered")
        layer = last_layer(worker.model.replicas[1].engine, "denoiser")
        with raising(layer, lambda: fault, at=2, times=10**6):
            _assert_same(run(worker, **job), whole)
        assert not is_open(worker)
        _assert_same(run(worker, **job), whole)


def test_a_model_larger_than_a_card_is_spread(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**kits["flux"].settings("loras"), "DTYPE": "bfloat16"}
    with a_worker(**settings, GPUS="1") as worker:
        expected = run(worker, **FEW, num_images=2)
        largest = sum(memory.weight_sizes([worker.model.engine.pipeline]).values())
        pixels = worker.model.engine.capabilities.width * worker.model.engine.capabilities.height
    monkeypatch.setattr(spread, "DECODE", DENOISE)  # or tiny weights are nothing beside what a picture takes
    room = RESERVE + pixels * DENOISE + largest * 9 // 10
    monkeypatch.setattr(memory, "free_memory", lambda _: room)
    with a_worker(**settings, GPUS="2") as worker:
        (replica,) = worker.model.replicas
        homes = {name: next(part.parameters()).device.index for name, part in modules(replica.engine.pipeline).items()}
        assert homes["transformer"] == 0 and 1 in homes.values(), homes
        for _ in range(2):
            _assert_same(run(worker, **FEW, num_images=2), expected)


def test_passes_on_a_second_card_are_clocked_and_captured_from_a_thread_of_the_first() -> None:
    second, large = torch.device("cuda", 1), torch.randn(4096, 4096)
    device, square = CudaDevice(second), large.to(second)
    assert torch.cuda.current_device() == 0
    device.clock(lambda: square @ square)  # what cuBLAS needs, once
    result, milliseconds = device.clock(lambda: square @ square)
    assert milliseconds > 0.05, "4096 cubed takes any GPU longer"
    graph = device.capture(lambda one: one @ square, Arguments((square,), {}, [square]))
    assert torch.equal(graph.replay([square]), result)
    assert torch.cuda.current_device() == 0


def test_pictures_are_the_same_while_other_cards_capture(kits: Kits) -> None:
    """A size that is new is captured by each card at its third pass, while the others draw."""
    settings = {**kits["sd1"].settings(), "DTYPE": "float16"}
    sizes = [64 + 8 * number for number in range(8)]
    with a_worker(**settings, ACCELERATION="off", GPUS="1") as worker:
        expected = [run(worker, **FEW, width=side, seed=side) for side in sizes]
    with (
        a_worker(**settings, ACCELERATION="graphs", JOBS_AT_ONCE="4") as worker,
        ThreadPoolExecutor(len(sizes)) as callers,
    ):
        for _ in range(3):
            found = callers.map(lambda side: run(worker, **FEW, width=side, seed=side), sizes)
            for one, other in zip(found, expected, strict=True):
                _assert_same(one, other)


def test_loras_loaded_at_once_on_all_cards(worker: Worker, alone: list[Answer]) -> None:
    number = next(number for number, job in enumerate(JOBS) if "loras" in job)
    for _ in range(3):
        for replica in worker.model.replicas:
            loras = replica.engine.loras
            for name in list(loras._loaded):
                worker.model.batcher.run(lambda loras=loras, name=name: loras._discard(adapter_name(name)), replica)  # type: ignore[misc]
                del loras._loaded[name]
        _assert_same(run(worker, **{**FEW, "num_images": 2 * CARDS, **JOBS[number]}), alone[number])


def test_all_engines_share_one_compiler(kits: Kits) -> None:
    settings = {**kits["sd1"].settings(), "ACCELERATION": "compile", "DTYPE": "float16", "WARM_UP": "off"}
    with a_worker(**settings) as worker:
        graphs = [replica.engine.graphs for replica in worker.model.replicas]
        assert len({id(one._compiler) for one in graphs if one is not None}) == 1 and None not in graphs


def test_no_process_has_come(worker: Worker) -> None:
    run(worker, **FEW, num_images=CARDS)
    assert psutil.Process().children() == []
