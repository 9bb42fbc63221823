"""The real worker process with a GPU: one context in the main process, whatever starts the heartbeat; and a sticky
CUDA error, after which the process answers, leaves, and has taken no other job."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker
from local_endpoint.events import FINAL_KINDS
from tests.helpers.python_path import python_path

ROOT = Path(__file__).parents[2]
START_METHODS = ROOT / "tests" / "platform"  # its sitecustomize.py chooses one
StartWorker = Callable[..., LocalWorker]


@pytest.fixture
def platform() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(EndpointConfig(hold_s=1.0)) as platform:
        yield platform


@pytest.fixture
def start_worker(platform: LocalEndpoint, tmp_path: Path) -> Iterator[StartWorker]:
    """`start_worker(script, NAME="value")`: a worker that has asked for its first job."""
    with ExitStack() as stack:

        def started(script: Path = ROOT / "handler.py", **env: str) -> LocalWorker:
            env = {"PYTHONPATH": python_path(ROOT), **env}  # for scripts that import handler.py
            log = tmp_path / "worker.log"
            worker = LocalWorker(platform, script, env=env, cwd=ROOT, log_path=log, ping_interval_ms=1000)
            return stack.enter_context(worker).wait_ready()

        yield started


def submit(platform: LocalEndpoint, **fields: Any) -> str:
    headers = {"Authorization": f"Bearer {platform.config.api_key}"}
    answer = httpx.post(f"{platform.url}/run", json={"input": fields}, headers=headers, trust_env=False)
    return str(answer.raise_for_status().json()["id"])


def how_it_ended(platform: LocalEndpoint, job_id: str) -> str:
    return str(platform.events.wait(*FINAL_KINDS, job_id=job_id, timeout=60).kind)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_one_load_one_context_and_a_live_heartbeat(
    start_method: str, platform: LocalEndpoint, start_worker: StartWorker
) -> None:
    worker = start_worker(TEST_START_METHOD=start_method, PYTHONPATH=python_path(START_METHODS))

    ended = how_it_ended(platform, submit(platform, prompt="a red heart", steps=100))
    platform.events.wait("ping", worker_id=worker.id, count=3)

    assert ended == "completed"
    assert worker.log().count('"message": "loaded ') == worker.log().count('"message": "device cuda') == 1
    assert worker.running


def test_after_a_device_assert_the_process_answers_and_leaves(
    platform: LocalEndpoint, start_worker: StartWorker
) -> None:
    worker = start_worker(Path(__file__).with_name("asserting_worker.py"))
    assert how_it_ended(platform, submit(platform, prompt="a red heart", steps=4)) == "completed"
    failing = submit(platform, prompt="a zorp heart", steps=4)
    waiting = submit(platform, prompt="a red heart", steps=4)

    assert how_it_ended(platform, failing) == "failed"

    result = platform.events.of("result", job_id=failing)[0].data
    assert result["error"].startswith("WORKER_BROKEN: ") and result["stopPod"] is True
    assert worker.wait() == 1
    assert worker.orphans == []
    assert "device-side assert" in worker.log()
    assert platform.events.of("taken", job_id=waiting) == []


def test_a_cancelled_job_leaves_the_gpu_at_its_next_step(platform: LocalEndpoint, start_worker: StartWorker) -> None:
    """A job of some minutes: drawn to its end, it would hold the next one up for longer than is waited here."""
    start_worker()
    assert how_it_ended(platform, submit(platform, prompt="a red heart", steps=20)) == "completed"
    running = submit(platform, prompt="a red heart", steps=500, num_images=16)
    platform.events.wait("progress", job_id=running)
    waiting = submit(platform, prompt="a blue star", steps=20)

    cancelled = time.monotonic()
    headers = {"Authorization": f"Bearer {platform.config.api_key}"}
    httpx.post(f"{platform.url}/cancel/{running}", headers=headers, trust_env=False).raise_for_status()

    assert how_it_ended(platform, waiting) == "completed"
    seconds = time.monotonic() - cancelled
    print(f"the next job was done {seconds:.2f} s after the cancel")
    assert how_it_ended(platform, running) == "cancelled"
    assert seconds < 10
