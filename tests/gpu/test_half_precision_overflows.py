"""Numbers too large for float16, on a GPU that computes in it: the right picture, or an error; never a black one."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.faults import Answer, a_worker, engine_of, is_open, overflowing, run, state
from worker.runtime.worker import Worker

SIZE = {"width": 256, "height": 256}


@pytest.fixture
def worker() -> Iterator[Worker]:
    """The embedded model, in float16 as UNets are on GPUs; its layers are called, which a graph would not do."""
    with a_worker(ACCELERATION="off") as worker:
        assert engine_of(worker).pipeline.unet.dtype == engine_of(worker).pipeline.vae.dtype == torch.float16
        yield worker


def drawn(worker: Worker) -> Answer:
    answer = run(worker, **SIZE)
    answer.pop("timings")
    return answer


def pixels(answer: Answer) -> np.ndarray[Any, Any]:
    file = base64.b64decode(answer["images"][0].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(file)), np.float64)


def test_a_decoder_that_overflows_decodes_in_float32(worker: Worker) -> None:
    before, how_it_was = drawn(worker), state(engine_of(worker))

    with overflowing(engine_of(worker).pipeline.vae.decoder.up_blocks[0].resnets[0].conv1) as fault:
        answer = drawn(worker)

    assert fault.happened == 2, "in float16 and in float32"
    assert answer["warnings"] == before["warnings"] == []
    assert np.abs(pixels(answer) - pixels(before)).mean() < 2 < pixels(before).std()
    assert state(engine_of(worker)) == how_it_was
    assert drawn(worker) == before


def test_a_denoiser_that_overflows_in_one_job_is_an_error(worker: Worker) -> None:
    before, how_it_was = drawn(worker), state(engine_of(worker))

    with overflowing(engine_of(worker).pipeline.unet.mid_block.resnets[0].conv1, lambda call: call == 4) as fault:
        answer = run(worker, **SIZE)

    assert fault.happened == 1
    assert answer["code"] == "NON_FINITE_OUTPUT" and "DTYPE=bfloat16" in answer["error"]
    assert "images" not in answer and "refresh_worker" not in answer
    assert is_open(worker)
    assert state(engine_of(worker)) == how_it_was
    assert drawn(worker) == before


def test_one_that_always_does_is_a_worker_that_leaves_and_says_why(worker: Worker) -> None:
    with overflowing(engine_of(worker).pipeline.unet.mid_block.resnets[0].conv1):
        answer = run(worker, **SIZE)

    assert answer["code"] == "WORKER_BROKEN" and "DTYPE=bfloat16" in answer["error"]
    assert "images" not in answer
    assert not is_open(worker)


def test_a_graph_that_does_is_found_too() -> None:
    with a_worker(ACCELERATION="graphs") as worker:
        for _ in range(3):
            assert "images" in run(worker, **SIZE)
        for weight in engine_of(worker).pipeline.unet.mid_block.resnets[0].conv1.parameters():
            weight.data.mul_(30_000 / weight.data.abs().max())  # where the graphs read it
        answer = run(worker, **SIZE)
        assert engine_of(worker).mode == "graphs"

    assert answer["code"] == "WORKER_BROKEN" and "DTYPE=bfloat16" in answer["error"]
    assert "images" not in answer
