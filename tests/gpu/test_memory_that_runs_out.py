"""A card whose memory another process takes: drawn in a leaner way, or an error that says so; then as before.

The errors are the allocator's own. Large pictures are decoded whole at first, by tiles of 512x512 the second time.
"""

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.card import filled, held, needed
from tests.helpers.faults import Answer, a_worker, engine_of, is_open, last_layer, raising, run, state
from worker.engine.engine import Engine
from worker.engine.self_test import self_test
from worker.runtime.worker import Worker

JOB: dict[str, Any] = {"prompt": "a red heart", "num_inference_steps": 2, "scheduler": "Euler"}
LARGE = {**JOB, "width": 1024, "height": 1024}
HUGE = {**JOB, "width": 2048, "height": 2048}
MB = 10**6


@pytest.fixture
def worker() -> Iterator[Worker]:
    """The embedded model on the GPU, for pictures that large, after a job of each kind; without graphs, which have
    their memory already."""
    with a_worker(MAX_PIXELS=str(2048 * 2048), ACCELERATION="off") as worker:
        for job in (LARGE, HUGE):
            drawn(worker, **job)
            in_the_leaner_way(worker, **job)
        yield worker


def drawn(worker: Worker, **fields: Any) -> Answer:
    answer = run(worker, **fields)
    assert "error" not in answer, answer
    answer.pop("timings")
    return answer


def in_the_leaner_way(worker: Worker, **fields: Any) -> Answer:
    """The answer when memory runs out before any of it is used."""
    error = torch.OutOfMemoryError("CUDA out of memory")
    with raising(last_layer(engine_of(worker), "text encoder"), lambda: error):
        answer = drawn(worker, **fields)
    assert is_lean(answer)
    return answer


def is_lean(answer: Answer) -> bool:
    return [warning.partition(";")[0] for warning in answer["warnings"]] == ["memory ran out"]


def room_for_the_proof(worker: Worker) -> int:
    """Enough for the small picture that proves the engine, and for no other."""
    room = needed(lambda: self_test(engine_of(worker))) * 3 // 2 + 8 * MB
    assert room < needed(lambda: in_the_leaner_way(worker, **HUGE)) // 2
    return room


def off_by(one: Answer, other: Answer) -> float:
    """How far the pictures are from each other, of 255, where they are farthest."""
    files = [base64.b64decode(answer["images"][0].partition(",")[2]) for answer in (one, other)]
    pixels = [np.asarray(Image.open(io.BytesIO(file)), np.float64) for file in files]
    assert pixels[0].std() > 1, "an empty picture proves nothing"
    return float(np.abs(pixels[0] - pixels[1]).max())


@pytest.fixture
def as_before(worker: Worker) -> Callable[[], None]:
    """To be called after a fault: the card, the engine and the pictures are as they were.

    Where little memory was left, cuDNN keeps the smaller of its algorithms for convolutions of that size, which round
    otherwise: the large picture may be off by as much.
    """
    jobs = {}, LARGE
    answers, how_it_was, bytes_held = [drawn(worker, **job) for job in jobs], state(engine_of(worker)), held()

    def check() -> None:
        assert state(engine_of(worker)) == how_it_was
        assert held() < bytes_held + MB  # the last scheduler's timesteps among them
        small, large = [drawn(worker, **job) for job in jobs]
        assert small == answers[0]
        rounding = off_by(large, answers[1])
        print(f"\noff by {rounding:.0f} of 255")
        assert rounding < 4
        assert held() == bytes_held

    return check


def test_what_fits_by_tiles_only_is_drawn_by_tiles(worker: Worker, as_before: Callable[[], None]) -> None:
    expected = in_the_leaner_way(worker, **LARGE)
    whole = needed(lambda: drawn(worker, **LARGE))
    by_tiles = needed(lambda: in_the_leaner_way(worker, **LARGE))
    room = by_tiles * 5 // 4
    print(f"\n{whole / MB:.0f} MB whole, {by_tiles / MB:.0f} MB by tiles")
    assert room < whole * 3 // 4, "else this proves nothing"

    with filled(leaving=room):
        answer = drawn(worker, **LARGE)

    assert is_lean(answer)
    assert off_by(answer, expected) < 16
    as_before()


def test_memory_that_comes_back_in_between_is_used(
    worker: Worker, as_before: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, repair = in_the_leaner_way(worker, **HUGE), Engine.repair

    with filled(leaving=room_for_the_proof(worker)) as free:

        def repair_later(engine: Engine) -> None:
            free()
            repair(engine)

        monkeypatch.setattr(Engine, "repair", repair_later)
        answer = drawn(worker, **HUGE)

    assert is_lean(answer)
    assert off_by(answer, expected) < 16
    as_before()


def test_what_does_not_fit_is_an_error_that_says_so(worker: Worker, as_before: Callable[[], None]) -> None:
    with filled(leaving=room_for_the_proof(worker)):
        answer = run(worker, **HUGE)

    assert answer["code"] == "OUT_OF_MEMORY" and "fewer pixels" in answer["error"]
    assert "refresh_worker" not in answer
    assert is_open(worker)
    as_before()


def test_however_often_the_worker_stays_while_a_small_one_fits(worker: Worker) -> None:
    with filled(leaving=room_for_the_proof(worker)):
        answers = [run(worker, **HUGE) for _ in range(3)]

    assert [answer["code"] for answer in answers] == ["OUT_OF_MEMORY"] * 3
    assert is_open(worker)


def test_where_not_even_the_proof_fits_the_worker_leaves_at_once(worker: Worker) -> None:
    with filled(leaving=4 * MB):
        answer = run(worker, **HUGE)

    assert answer["code"] == "WORKER_BROKEN" and answer["refresh_worker"] is True
    assert not is_open(worker)


def test_the_memory_of_graphs_is_there_for_a_picture_that_needs_it() -> None:
    """Three of a kind make a graph. What then is left would not do for a huge picture by tiles."""
    with a_worker(MAX_PIXELS=str(2048 * 2048), ACCELERATION="graphs") as worker:
        expected = in_the_leaner_way(worker, **HUGE)
        lean = needed(lambda: in_the_leaner_way(worker, **HUGE))
        for _ in range(3):
            large = drawn(worker, **LARGE)
        assert engine_of(worker).mode == "graphs"
        with filled(leaving=lean // 2):
            answer = drawn(worker, **HUGE)
        assert is_lean(answer)
        assert off_by(answer, expected) < 16
        assert is_open(worker)
        assert all(off_by(drawn(worker, **LARGE), large) < 4 for _ in range(3))
