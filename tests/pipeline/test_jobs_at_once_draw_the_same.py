"""Jobs that are in hand at once get the pictures, and the warnings, that each gets alone."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers.faults import Answer, a_worker, run
from tests.helpers.tiny_addons import Kits

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
