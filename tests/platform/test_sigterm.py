"""A worker that is told to stop finishes what it has, takes nothing that it will not do, and exits 0."""

import signal
from typing import Any


def test_a_busy_worker_delivers_first_and_does_not_wait_for_polls_that_the_platform_holds(
    start_platform: Any, open_worker: Any, tiny_sd1: str
) -> None:
    platform = start_platform(hold_s=60.0)
    with open_worker(platform, env={"MODEL_NAME": tiny_sd1, "MAX_STEPS": "5000"}) as worker:
        running = platform.submit({"prompt": "a star", "steps": 300})
        platform.events.wait("progress", job_id=running)

        worker.send(signal.SIGTERM)
        waiting = platform.submit({"prompt": "a star", "steps": 2})

        assert platform.wait(running)["status"] == "COMPLETED"
        assert worker.wait(20) == 0
        assert worker.orphans == []
        assert platform.events.story(waiting) == ["queued"]


def test_an_idle_worker_leaves_at_once_and_loses_nothing(platform: Any, start_worker: Any, tiny_sd1: str) -> None:
    worker = start_worker(env={"MODEL_NAME": tiny_sd1})
    platform.ask({"prompt": "a star", "steps": 2})

    worker.send(signal.SIGTERM)
    right_after = platform.submit({"prompt": "a star", "steps": 2})
    assert worker.wait(20) == 0
    offered = platform.submit({"prompt": "a star", "steps": 2})

    assert worker.orphans == []
    assert platform.events.story(offered) == ["queued"]
    start_worker("tests/platform/picture_worker.py")  # the next one, whoever that is
    assert [platform.wait(job)["status"] for job in (right_after, offered)] == ["COMPLETED"] * 2
