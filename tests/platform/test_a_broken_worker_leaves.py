"""A failure ends in an answer; only a broken process leaves, after its answer, and the next worker takes over."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

FAULTY = Path(__file__).with_name("faulty_worker.py")


@pytest.fixture(scope="module")
def platform(open_platform: Any) -> Iterator[Any]:
    """One for all workers here."""
    with open_platform() as platform:
        yield platform


@pytest.fixture(scope="module")
def next_worker(platform: Any, open_worker: Any, tiny_sd1: str) -> Iterator[Callable[[], Any]]:
    """Gives the worker that lives, or a new one when that has left."""
    with ExitStack() as stack:
        started: list[Any] = []

        def found() -> Any:
            if not started or not started[-1].running:
                started.append(stack.enter_context(open_worker(platform, FAULTY, env={"MODEL_NAME": tiny_sd1})))
            return started[-1]

        yield found


def test_other_failures_are_answered_and_the_worker_goes_on(platform: Any, next_worker: Any) -> None:
    worker = next_worker()

    before = platform.ask({"prompt": "a star", "steps": 2, "seed": 1})
    memory = platform.ask({"prompt": "out of memory", "steps": 2})
    after = platform.ask({"prompt": "a star", "steps": 2, "seed": 1})
    bug = platform.ask({"prompt": "a bug", "steps": 2})
    refused = platform.ask({"prompt": "a star", "steps": -1})
    spared = platform.ask({"prompt": "out of memory once", "steps": 2})

    assert memory["error"].startswith("OUT_OF_MEMORY: ")
    assert after["output"]["images"] == before["output"]["images"]
    assert bug["error"].startswith("INTERNAL_ERROR: ")
    assert "Traceback" not in bug["error"]
    assert "secret detail" not in bug["error"]
    assert refused["error"].startswith("INVALID_INPUT: ")
    assert spared["status"] == "COMPLETED"
    assert "memory" in spared["output"]["warnings"][0]
    assert {job["workerId"] for job in (before, memory, after, bug, refused, spared)} == {worker.id}


def test_a_device_fault_is_answered_then_the_process_leaves_and_no_job_is_lost(platform: Any, next_worker: Any) -> None:
    broken = next_worker()
    failing = platform.submit({"prompt": "illegal memory access", "steps": 2})
    waiting = platform.submit({"prompt": "a star", "steps": 2})

    answer = platform.wait(failing)

    assert answer["status"] == "FAILED"
    assert answer["error"].startswith("WORKER_BROKEN: ")
    assert platform.events.of("result", job_id=failing)[0].data["stopPod"] is True
    assert broken.wait() == 1
    assert broken.orphans == []
    healthy = next_worker()
    assert platform.wait(waiting)["status"] == "COMPLETED"
    assert platform.events.of("taken", job_id=waiting)[-1].worker_id == healthy.id
    assert len(platform.events.of("taken", job_id=waiting)) == 1


def test_a_request_that_always_fails_never_ends_the_worker(platform: Any, next_worker: Any) -> None:
    worker = next_worker()

    failing = [platform.ask({"prompt": "a bug", "steps": 2}) for _ in range(3)]
    fine = platform.ask({"prompt": "a star", "steps": 2})

    assert all(answer["error"].startswith("INTERNAL_ERROR: ") for answer in failing)
    assert fine["status"] == "COMPLETED"
    assert worker.running
