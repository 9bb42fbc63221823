"""The SDK's local modes: test_input.json, --test_input, and --rp_serve_api."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.helpers.python_path import python_path

HANDLER = Path(__file__).parents[2] / "handler.py"
SEEDS = range(20)


@pytest.fixture(scope="module")
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


def test_test_input_on_the_command_line_ends_with_the_paths_and_nothing_else(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    job = {"id": "one of my own", "input": {"prompt": "a star", "steps": 3, "num_images": 2}}
    command = [sys.executable, str(HANDLER), "--test_input", json.dumps(job)]
    terminal = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    paths = sorted(f"outputs/{path.name}" for path in (tmp_path / "outputs").iterdir())
    assert terminal.returncode == 0, terminal.stdout
    assert len(paths) == 2
    assert terminal.stdout.splitlines()[-2:] == paths


def test_a_bad_test_input_ends_with_its_reason(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run(tmp_path, environment, "--test_input", '{"input": {"steps": 3}}')

    assert finished.returncode == 1
    assert "prompt: required" in finished.stdout


def test_a_broken_test_input_json_is_one_line_and_waits_for_no_torch(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "test_input.json").write_text('{\n  "input": {"prompt" "a star"}\n}\n')
    (tmp_path / "torch.py").write_text("raise ImportError('not now')")

    finished = run(tmp_path, {**environment, "PYTHONPATH": python_path(tmp_path)})

    assert finished.returncode == 1
    told = [line for line in finished.stderr.splitlines() if not line.startswith("INFO ")]
    assert told == ["test_input.json, line 2, column 22: Expecting ':' delimiter"]
    assert finished.stdout == ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker that `api` calls was started."""
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def api(folder: Path, environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A caller of a worker that runs with --rp_serve_api."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, str(HANDLER), "--rp_serve_api", "--rp_api_port", str(port)]
    url = f"http://localhost:{port}"
    with subprocess.Popen(command, cwd=folder, env=environment) as server:
        try:
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                _wait_until_up(client)
                yield client
        finally:
            server.terminate()


def _wait_until_up(client: httpx.Client) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            client.get("/")
            return
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _post(api: httpx.Client, path: str, seed: int = 0, steps: int = 3) -> Any:
    job = {"prompt": "a star", "steps": steps, "seed": seed}
    return api.post(path, json={"input": job}).raise_for_status().json()


def _images(answer: Any) -> list[str]:
    assert answer["status"] == "COMPLETED", answer
    images: list[str] = answer["output"]["images"]
    return images


def test_the_serve_api_answers_with_data_uris(folder: Path, api: httpx.Client) -> None:
    (image,) = _images(_post(api, "/runsync"))

    assert image.startswith("data:image/png;base64,")
    assert not (folder / "outputs").exists()


def test_the_serve_api_answers_many_requests_at_once_each_with_its_own_picture(api: httpx.Client) -> None:
    alone = {seed: _images(_post(api, "/runsync", seed)) for seed in SEEDS}
    assert len({image for images in alone.values() for image in images}) == len(SEEDS)

    with ThreadPoolExecutor(len(SEEDS)) as callers:
        together = dict(zip(SEEDS, callers.map(lambda seed: _images(_post(api, "/runsync", seed)), SEEDS), strict=True))
        queued = {seed: _post(api, "/run", seed)["id"] for seed in SEEDS}
        collected = callers.map(lambda job_id: _images(api.post(f"/status/{job_id}").json()), queued.values())
        asked_later = dict(zip(SEEDS, collected, strict=True))

    assert together == alone
    assert asked_later == alone


def test_the_serve_api_answers_everybody_who_asks_for_one_job_at_once(api: httpx.Client) -> None:
    """The SDK has the job drawn by the call that asks for it, so each of them has; whoever comes later finds none."""
    expected = _images(_post(api, "/runsync", steps=150))
    path = f"/status/{_post(api, '/run', steps=150)['id']}"  # long enough for the second to come meanwhile

    with ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda _: _images(api.post(path).json()), range(2)))

    assert answers == [expected, expected]
