"""The SDK's local modes: test_input.json, --test_input, and --rp_serve_api."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

HANDLER = Path(__file__).parents[2] / "handler.py"


@pytest.fixture
def environment(tiny_sd1: str) -> dict[str, str]:
    return {**os.environ, "MODEL_NAME": tiny_sd1}


def run(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HANDLER), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_test_input_json_becomes_a_file_named_in_a_few_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "test_input.json").write_text(json.dumps({"input": {"prompt": "a star", "seed": 11, "steps": 3}}))

    finished = run(tmp_path, environment)

    assert finished.returncode == 0, finished.stderr
    (path,) = (tmp_path / "outputs").iterdir()
    printed = (finished.stdout + finished.stderr).splitlines()
    assert Image.open(path).size == (64, 64)
    assert any("seed 11" in line for line in printed)
    assert any("denoise " in line for line in printed)
    assert len(printed) <= 8
    assert max(map(len, printed)) < 250
    assert "torchvision" not in "".join(printed)
    assert "Warning" not in "".join(printed)
    assert "bitsandbytes" not in "".join(printed)


def test_the_last_lines_are_the_paths_and_nothing_else(tmp_path: Path, environment: dict[str, str]) -> None:
    job = {"input": {"prompt": "a star", "steps": 3, "num_images": 2}}
    command = [sys.executable, str(HANDLER), "--test_input", json.dumps(job)]
    terminal = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    paths = sorted(f"outputs/{path.name}" for path in (tmp_path / "outputs").iterdir())
    assert len(paths) == 2
    assert terminal.stdout.splitlines()[-2:] == paths


def test_test_input_on_the_command_line(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run(
        tmp_path, environment, "--test_input", '{"input": {"prompt": "a star", "steps": 3, "num_images": 2}}'
    )

    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "outputs").iterdir())) == 2


def test_a_bad_test_input_ends_with_its_reason(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run(tmp_path, environment, "--test_input", '{"input": {"steps": 3}}')

    assert finished.returncode == 1
    assert "prompt: required" in finished.stdout


def test_a_broken_test_input_json_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "test_input.json").write_text('{\n  "input": {"prompt" "a star"}\n}\n')

    finished = run(tmp_path, environment)

    assert finished.returncode == 1
    told = [line for line in finished.stderr.splitlines() if not line.startswith("INFO ")]
    assert told == ["test_input.json, line 2, column 22: Expecting ':' delimiter"]
    assert finished.stdout == ""


def test_the_serve_api_answers_with_data_uris(tmp_path: Path, environment: dict[str, str], free_port: int) -> None:
    command = [sys.executable, str(HANDLER), "--rp_serve_api", "--rp_api_port", str(free_port)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as server:
        try:
            answer = _ask_when_up(f"http://localhost:{free_port}/runsync", {"prompt": "a star", "steps": 3})
        finally:
            server.terminate()

    assert answer["status"] == "COMPLETED"
    assert answer["output"]["images"][0].startswith("data:image/png;base64,")
    assert not (tmp_path / "outputs").exists()


def _ask_when_up(url: str, job: dict[str, object]) -> dict[str, dict[str, list[str]]]:
    deadline = time.monotonic() + 90
    while True:
        try:
            return httpx.post(url, json={"input": job}, timeout=60, trust_env=False).json()
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
