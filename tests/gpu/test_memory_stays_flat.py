"""Rounds of mixed jobs, some of which fail: after each round the card holds what it held, and never needed more."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.helpers.card import held
from tests.helpers.drawing import hole, scene, uri
from tests.helpers.faults import a_worker, engine_of, giving, last_layer, raising, run
from tests.helpers.tiny_addons import denoiser
from worker.runtime.worker import Worker

ROUNDS = 5
SIZE = {"width": 256, "height": 256}
JOBS: list[dict[str, Any]] = [
    SIZE,
    {"width": 512, "height": 384, "num_images": 2, "scheduler": "Euler"},
    {**SIZE, "lora": "neon"},
    {"image": uri(scene(256, 256)), "width": None, "height": None, "strength": 0.6},
    {"image": uri(scene(256, 256)), "mask": uri(hole(256, 256)), "width": None, "height": None, "lora": "neon"},
    {**SIZE, "hires": {"scale": 1.5}},
    {**SIZE, "hires": {"scale": 1.5, "upscaler": "latent"}, "scheduler": "DPM++ 2M"},
    {**SIZE, "prompt": "a (red:1.3) heart on a white background " * 12},
]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """The embedded model and its LoRA; its layers are called, which a graph would not do."""
    with a_worker(ACCELERATION="off") as worker:
        yield worker


def one_round(worker: Worker) -> list[Any]:
    """The pictures of all jobs, with failures and a second try among them."""
    engine = engine_of(worker)
    images = [run(worker, **job)["images"] for job in JOBS]
    with raising(last_layer(engine, "denoiser"), lambda: KeyError("a bug"), at=2):
        assert run(worker, **JOBS[2])["code"] == "INTERNAL_ERROR"
    images.append(run(worker)["images"])
    with giving(last_layer(engine, "denoiser"), math.nan, lambda call, _: call == 4):
        assert run(worker, **SIZE)["code"] == "NON_FINITE_OUTPUT"
    images.append(run(worker)["images"])
    with raising(last_layer(engine, "decoder"), lambda: torch.OutOfMemoryError("CUDA out of memory"), times=2):
        assert run(worker, **SIZE)["code"] == "OUT_OF_MEMORY"
    with raising(last_layer(engine, "decoder"), lambda: torch.OutOfMemoryError("CUDA out of memory")):
        images.append(run(worker, **SIZE)["images"])
    assert next(denoiser(engine.pipeline).parameters()).device.type == "cuda"
    return images


def test_every_round_is_like_the_one_before(worker: Worker) -> None:
    first = one_round(worker)
    at_rest, reserved, peaks = [], [], []

    for _ in range(ROUNDS):
        torch.cuda.reset_peak_memory_stats()
        assert one_round(worker) == first
        at_rest.append(held())
        reserved.append(torch.cuda.memory_reserved())
        peaks.append(torch.cuda.max_memory_allocated())

    megabytes = [[round(bytes_ / 1e6, 1) for bytes_ in row] for row in (at_rest, reserved, peaks)]
    print(f"\nMB held, reserved and at the peak, round by round: {megabytes}")
    assert set(at_rest) == {at_rest[0]}
    assert set(peaks) == {peaks[0]}
    assert max(reserved[1:]) <= reserved[0]


def test_graphs_take_no_more_with_time() -> None:
    """They are bounded, and set aside where memory runs out."""
    with a_worker(ACCELERATION="graphs") as worker:
        pictures, at_rest = [], []
        for _ in range(ROUNDS):
            pictures.append([run(worker, **job)["images"] for job in JOBS for _ in range(3)])
            at_rest.append(held())
            with raising(last_layer(engine_of(worker), "text encoder"), lambda: torch.OutOfMemoryError("CUDA")):
                assert run(worker, **SIZE)["warnings"]
        assert engine_of(worker).mode == "off", "after memory ran out"
    print(f"\nMB held, round by round: {[round(bytes_ / 1e6, 1) for bytes_ in at_rest]}")
    assert all(one == pictures[0] for one in pictures)
    assert max(at_rest[1:]) <= at_rest[0]
