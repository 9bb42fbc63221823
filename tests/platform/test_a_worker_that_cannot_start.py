"""Whatever keeps a worker from starting is named once, where it is heard: by the platform, or on the terminal."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

CASES = {
    "missing folder": ({"MODEL_NAME": "/models/none"}, "MODEL_NAME"),
    "wrong setting": ({"MAX_STEPS": "many"}, "MAX_STEPS"),
    "half a bucket": ({"BUCKET_NAME": "pictures"}, "BUCKET_ENDPOINT_URL"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_platform_is_told_the_reason(case: str, platform: Any, start_worker: Any) -> None:
    environment, named = CASES[case]
    worker = start_worker(env=environment, ready=False)

    unhealthy = platform.events.wait("unhealthy", worker_id=worker.id)

    assert named in unhealthy.data["reason"]
    assert worker.wait() == 1
    assert not platform.events.of("taken", worker_id=worker.id)


@pytest.mark.parametrize("case", CASES)
def test_a_local_run_prints_one_line(case: str) -> None:
    environment, named = CASES[case]

    run = subprocess.run(
        [sys.executable, "handler.py"], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )

    assert run.returncode == 1
    lines = (run.stdout + run.stderr).splitlines()
    assert len(lines) == 1, lines
    assert named in lines[0]
