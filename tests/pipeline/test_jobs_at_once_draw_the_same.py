"""Jobs that are in hand at once get the pictures, and the warnings, that each gets alone."""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.helpers.faults import Answer, a_worker, last_layer, run
from tests.helpers.tiny_addons import Kits
from worker.runtime import batcher
from worker.runtime.worker import Worker

JOBS: list[dict[str, Any]] = [
    {"prompt": "a star", "seed": 1},
    {"prompt": "a much longer one, " * 30, "seed": 2},
    {"prompt": "a (weighted:1.3) one", "seed": 3},
    {"prompt": ["two", "prompts of different lengths"], "seed": 4},
]
ROUNDS = 12


def _told(answer: Answer) -> tuple[Any, ...]:
    return answer.get("code"), answer.get("images"), answer.get("warnings")


@pytest.mark.parametrize("family", ["sd1", "sd3", "flux"])
def test_many_at_once(family: str, kits: Kits) -> None:
    with a_worker(**kits[family].settings(), JOBS_AT_ONCE="8") as worker:
        alone = [_told(run(worker, num_inference_steps=2, **job)) for job in JOBS]
        with ThreadPoolExecutor(8) as callers:
            together = list(callers.map(lambda job: _told(run(worker, num_inference_steps=2, **job)), JOBS * ROUNDS))

    assert together == alone * ROUNDS
    assert all(images for _, images, _ in alone)


def test_what_waits_is_drawn_in_one_pass_where_the_owner_wants_it(kits: Kits) -> None:
    jobs = [{"prompt": f"star {number}", "seed": number, "num_inference_steps": 2} for number in range(12)]
    with a_worker(**kits["sd1"].settings(), JOBS_AT_ONCE="4") as worker:
        alone = [run(worker, **job)["images"] for job in jobs]
    with (
        a_worker(**kits["sd1"].settings(), JOBS_AT_ONCE="4", MAX_BATCH="4") as worker,
        ThreadPoolExecutor(4) as callers,
    ):
        shapes: list[int] = []
        layer = last_layer(worker.model.engine, "denoiser")
        layer.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape[0]))
        together = [one["images"] for one in callers.map(lambda job: run(worker, **job), jobs)]

    assert max(shapes) > 2, "a guided picture alone is two"
    for one, other in zip(together, alone, strict=True):
        ours, theirs = (_pixels(images[0]) for images in (one, other))
        assert np.abs(ours - theirs).max() <= 2 and theirs.std() > 1


def test_what_is_handed_over_together_is_drawn_together(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "GATHER_S", 10.0)  # or a machine with other things to do would be too slow
    monkeypatch.setattr(batcher, "APART_S", 1.0)
    given = {"prompt": "a star", "num_inference_steps": 2, "width": 64, "height": 64}

    async def hand_over(worker: Worker) -> list[Any]:
        jobs = [{"id": str(seed), "input": {**given, "seed": seed}} for seed in range(4)]
        return await asyncio.gather(*[worker.handle(job) for job in jobs])  # type: ignore[arg-type]

    with a_worker(**kits["sd1"].settings(), JOBS_AT_ONCE="4", MAX_BATCH="4") as worker:
        shapes: list[int] = []
        layer = last_layer(worker.model.engine, "denoiser")
        layer.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape[0]))
        answers = asyncio.run(hand_over(worker))

    assert all("images" in one for one in answers)
    assert shapes == [8, 8], "four guided pictures, two steps"


def _pixels(data_uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))), np.float64)
