"""The process shape under every start method: one load, before the first job is asked for, and one child that pings."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.python_path import python_path


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_one_load_and_a_live_heartbeat(start_method: str, platform: Any, start_worker: Any, tiny_sd1: str) -> None:
    hooks = python_path(Path(__file__).parent)  # which holds sitecustomize.py
    worker = start_worker(env={"MODEL_NAME": tiny_sd1, "TEST_START_METHOD": start_method, "PYTHONPATH": hooks})
    loaded_before_first_poll = worker.log().count('"message": "loaded ')

    job_id = platform.submit({"prompt": "a star", "steps": 60})
    platform.wait(job_id)
    platform.events.wait("ping", worker_id=worker.id, count=3)

    assert loaded_before_first_poll == 1
    assert worker.log().count('"message": "loaded ') == 1
    assert platform.events.of("completed", job_id=job_id)
    own = [child for child in worker.children() if not _belongs_to_multiprocessing(child)]
    assert len(own) == 1, [child.cmdline() for child in worker.children()]


def _belongs_to_multiprocessing(process: Any) -> bool:
    """The helpers that Python itself keeps beside spawned children."""
    command = " ".join(process.cmdline())
    return "resource_tracker" in command or ("multiprocessing.forkserver" in command and process.children())
