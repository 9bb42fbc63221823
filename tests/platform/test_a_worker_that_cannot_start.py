"""Whatever keeps a worker from starting is named once, where it is heard: by the platform, or on the terminal.

tests/pipeline/test_starts_that_fail.py has many more reasons, without a process for each.
"""

import os
import shutil
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


def test_the_platform_is_told_of_half_a_download(platform: Any, start_worker: Any, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / "shapes", tmp_path / "half")
    weights = tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    worker = start_worker(env={"MODEL_NAME": str(tmp_path / "half")}, ready=False)

    unhealthy = platform.events.wait("unhealthy", worker_id=worker.id)

    assert str(weights) in unhealthy.data["reason"]
    assert worker.wait() == 1


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


def test_a_local_run_prints_one_line_beside_its_log_when_the_model_has_been_read() -> None:
    environment = {**os.environ, "DEFAULT_SCHEDULER": "Flow Euler"}

    run = subprocess.run([sys.executable, "handler.py"], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert run.returncode == 1
    lines = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("INFO ")]
    assert len(lines) == 1, lines
    assert "DEFAULT_SCHEDULER: got 'Flow Euler'" in lines[0]
