"""A failure ends in an answer; only a broken process leaves, after its answer, and the next worker takes over."""

from pathlib import Path
from typing import Any

FAULTY = Path(__file__).with_name("faulty_worker.py")


def test_a_device_fault_is_answered_then_the_process_leaves_and_no_job_is_lost(
    platform: Any, start_worker: Any, tiny_sd1: str
) -> None:
    broken = start_worker(FAULTY, env={"MODEL_NAME": tiny_sd1})
    failing = platform.submit({"prompt": "illegal memory access", "steps": 2})
    waiting = platform.submit({"prompt": "a star", "steps": 2})

    answer = platform.wait(failing)

    assert answer["status"] == "FAILED"
    assert answer["error"].startswith("WORKER_BROKEN: ")
    assert platform.events.of("result", job_id=failing)[0].data["stopPod"] is True
    assert broken.wait() == 1
    assert broken.orphans == []
    healthy = start_worker(env={"MODEL_NAME": tiny_sd1})
    assert platform.wait(waiting)["status"] == "COMPLETED"
    assert platform.events.of("taken", job_id=waiting)[-1].worker_id == healthy.id
    assert len(platform.events.of("taken", job_id=waiting)) == 1


def test_other_failures_are_answered_and_the_worker_goes_on(platform: Any, start_worker: Any, tiny_sd1: str) -> None:
    worker = start_worker(FAULTY, env={"MODEL_NAME": tiny_sd1})

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


def test_two_admissible_jobs_in_a_row_that_fail_end_the_worker(platform: Any, start_worker: Any, tiny_sd1: str) -> None:
    worker = start_worker(FAULTY, env={"MODEL_NAME": tiny_sd1})

    first = platform.ask({"prompt": "a bug", "steps": 2})
    refused = platform.ask({"prompt": "a star", "steps": -1})
    second = platform.ask({"prompt": "a bug", "steps": 2})

    assert first["error"].startswith("INTERNAL_ERROR: ")
    assert refused["error"].startswith("INVALID_INPUT: ")
    assert second["error"].startswith("WORKER_BROKEN: ")
    assert worker.wait() == 1
    assert worker.orphans == []
