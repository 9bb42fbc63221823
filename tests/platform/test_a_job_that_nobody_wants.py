"""A cancelled job stops at its next step; nothing of it is told any more, and the next job is as ever."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

LONG = {"prompt": "a red heart", "seed": 1, "steps": 400, "width": 64, "height": 64}
SHORT = {"prompt": "a blue star", "seed": 2, "steps": 3, "width": 64, "height": 64}
AFTER_S = 4.0  # for which nothing may follow; progress is told every half second


@pytest.fixture(scope="module")
def scene(open_platform: Any, open_worker: Any, tiny_sd1: str) -> Iterator[Any]:
    """A platform and a worker with a tiny model, whose jobs of 400 steps take many seconds."""
    with open_platform() as platform, open_worker(platform, env={"MODEL_NAME": tiny_sd1, "MAX_STEPS": "5000"}):
        yield platform


def _start(platform: Any, **fields: Any) -> str:
    """The id of a job that is being drawn."""
    job_id = str(platform.submit({**LONG, "steps": 5000, **fields}))
    platform.events.wait("progress", job_id=job_id)
    return job_id


def _bytes(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(uri.partition(",")[2]) for uri in answer["output"]["images"]]


def test_the_next_job_starts_within_a_step_and_the_sdks_second(scene: Any) -> None:
    expected = _bytes(scene.ask(SHORT))
    job_id = _start(scene)
    next_id = scene.submit(SHORT)

    cancelled = time.monotonic()
    scene.call("POST", f"/cancel/{job_id}")
    answer = scene.wait(next_id)

    assert answer["status"] == "COMPLETED" and _bytes(answer) == expected
    assert time.monotonic() - cancelled < 5.0, "the job of minutes was drawn to its end"


def test_nothing_is_told_of_it_any_more(scene: Any) -> None:
    job_id = _start(scene)
    scene.call("POST", f"/cancel/{job_id}")
    assert scene.ask(SHORT)["status"] == "COMPLETED"  # by then it is over
    told = len(scene.events.of(job_id=job_id))
    time.sleep(AFTER_S)

    assert len(scene.events.of(job_id=job_id)) == told
    assert scene.call("GET", f"/status/{job_id}")["status"] == "CANCELLED"


def test_a_job_beyond_the_platforms_time_for_it_stops_too(scene: Any) -> None:
    job_id = scene.submit({**LONG, "steps": 5000}, policy={"executionTimeout": 5000})
    assert scene.wait(job_id)["status"] == "TIMED_OUT"
    ended = time.monotonic()

    assert scene.ask(SHORT)["status"] == "COMPLETED"
    assert time.monotonic() - ended < 5.0


def test_many_in_a_row_leave_the_worker_as_it_was(scene: Any) -> None:
    expected = _bytes(scene.ask(SHORT))
    for _ in range(5):
        scene.call("POST", f"/cancel/{_start(scene)}")

    assert _bytes(scene.ask(SHORT)) == expected
