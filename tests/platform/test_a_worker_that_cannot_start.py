"""Whatever keeps a worker from starting is named once, where it is heard: by the platform, or on the terminal.

tests/pipeline/test_starts_that_fail.py has many more reasons, without a process for each.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers.python_path import python_path

ROOT = Path(__file__).parents[2]


def test_the_platform_is_told_of_half_a_download(platform: Any, start_worker: Any, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / "shapes", tmp_path / "half")
    weights = tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    worker = start_worker(env={"MODEL_NAME": str(tmp_path / "half")}, ready=False)

    unhealthy = platform.events.wait("unhealthy", worker_id=worker.id)

    assert str(weights) in unhealthy.data["reason"]
    assert worker.wait() == 1
    assert not platform.events.of("taken", worker_id=worker.id)


def test_a_name_forges_no_line_and_moves_no_cursor(platform: Any, start_worker: Any) -> None:
    worker = start_worker(env={"MODEL_NAME": "a/b\x1b[31m\nERROR  | forged\r"}, ready=False)

    unhealthy = platform.events.wait("unhealthy", worker_id=worker.id)

    assert r"a/b\x1b[31m\nERROR  | forged" in unhealthy.data["reason"]
    assert worker.wait() == 1
    written = worker.log_path.read_text("utf-8")
    assert "\x1b[31m" not in written and "\nERROR  | forged" not in written and "forged" in written


def test_a_local_run_prints_one_line_and_waits_for_no_torch_to_say_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not now')")
    run = _local_run(MAX_STEPS="many", PYTHONPATH=python_path(tmp_path))

    assert run.returncode == 1
    lines = (run.stdout + run.stderr).splitlines()
    assert len(lines) == 1, lines
    assert "MAX_STEPS" in lines[0]


def test_a_local_run_prints_one_line_beside_its_log_when_the_model_has_been_read() -> None:
    run = _local_run(DEFAULT_SCHEDULER="Flow Euler")

    assert run.returncode == 1
    lines = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("INFO ")]
    assert len(lines) == 1, lines
    assert "DEFAULT_SCHEDULER: got 'Flow Euler'" in lines[0]


def _local_run(**environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "handler.py"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def test_a_log_level_that_the_sdk_does_not_know_is_a_setting_like_others() -> None:
    unknown = _local_run(RUNPOD_LOG_LEVEL="loud").stderr
    blank = _local_run(RUNPOD_LOG_LEVEL=" ", MAX_STEPS="many").stderr

    assert unknown.startswith("BAD_SETTING: RUNPOD_LOG_LEVEL: got 'loud'; should be one of NOTSET, TRACE,")
    assert blank.startswith("BAD_SETTING: MAX_STEPS: got 'many'")
    assert unknown.count("\n") == blank.count("\n") == 1
