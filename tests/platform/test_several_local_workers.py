"""One local endpoint serves several worker processes from one queue, and says of each what state it is in."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ECHO = Path(__file__).with_name("echo_worker.py")


class Desk:
    """`python -m local_endpoint --workers 2`, and who calls it."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "local_endpoint", str(ECHO), "--port", str(port), "--workers", "2"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        headers = {"Authorization": "local"}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}/v2/local", headers=headers, trust_env=False)

    def count(self) -> dict[str, int]:
        counts: dict[str, int] = self.http.get("/health").json()["workers"]
        return counts

    def submit(self, **order: Any) -> str:
        return str(self.http.post("/run", json={"input": order}).json()["id"])

    def look(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"/status/{job_id}").json()
        return answer

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if str(ECHO) in child.cmdline()]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """With both workers ready."""
    desk = Desk(free_port())
    try:
        read_until(desk, " of 2 is ready")
        counts = desk.count()
        assert counts["initializing"] + counts["idle"] == 2
        read_until(desk, " of 2 is ready")
        yield desk
    finally:
        desk.process.kill()
        desk.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def read_until(desk: Desk, word: str) -> None:
    assert desk.process.stdout
    for line in desk.process.stdout:
        if word in line:
            return
    raise AssertionError(f"it ended before it said {word!r}")


def wait_until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_they_work_at_the_same_time(desk: Desk) -> None:
    wait_until(lambda: desk.count()["idle"] == 2)
    jobs = [desk.submit(sleep=3, output=number) for number in range(2)]
    wait_until(lambda: desk.count()["running"] == 2)

    assert {state: count for state, count in desk.count().items() if count} == {"running": 2}
    wait_until(lambda: all(desk.look(job)["status"] == "COMPLETED" for job in jobs))
    assert [desk.look(job)["output"] for job in jobs] == [0, 1]
    assert len({desk.look(job)["workerId"] for job in jobs}) == 2


def test_one_that_dies_is_replaced_while_the_other_goes_on(desk: Desk) -> None:
    wait_until(lambda: desk.count()["idle"] == 2)
    first, other = desk.workers()

    os.kill(first.pid, signal.SIGKILL)
    assert desk.http.post("/runsync", json={"input": {"output": "meanwhile"}}).json()["output"] == "meanwhile"
    read_until(desk, "starting another")
    read_until(desk, " of 2 is ready")

    assert other in desk.workers() and first not in desk.workers() and len(desk.workers()) == 2


def test_both_end_with_it(desk: Desk) -> None:
    started = desk.workers()
    desk.process.send_signal(signal.SIGTERM)

    assert desk.process.wait(30) == 0
    assert len(started) == 2 and not any(worker.is_running() for worker in started)


def test_one_that_cannot_start_ends_all() -> None:
    command = [sys.executable, "-m", "local_endpoint", "no_such_worker.py", "--port", "0", "--workers", "3"]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 2
    assert "of 3 ended with code 2 before it asked for a job" in ended.stderr and "Traceback" not in ended.stderr


def test_a_worker_is_initializing_then_idle_then_running_then_idle_again(platform: Any) -> None:
    """'Initializing: ... loading code', 'Idle: ... waiting for requests', 'Running: Processing requests'
    (docs.runpod.io, serverless/workers/overview, worker states)."""

    def states() -> dict[str, int]:
        counts = platform.call("GET", "/health")["workers"]
        return {state: count for state, count in counts.items() if count}

    def work(method: str, path: str, **options: Any) -> None:
        platform.http.request(method, path, params={"key": platform.config.worker_key}, **options).raise_for_status()

    platform.worker_started("w")
    wait_until(lambda: states() == {"initializing": 1})
    work("GET", "/ping/w")
    assert states() == {"initializing": 1}
    work("GET", "/job-take/w")
    assert states() == {"ready": 1, "idle": 1}
    job_id = platform.submit({})
    work("GET", "/job-take/w")
    assert states() == {"running": 1}
    work("POST", f"/job-done/w/{job_id}", json={"output": 1})
    assert states() == {"ready": 1, "idle": 1}
    platform.worker_gone("w", "over")
    wait_until(lambda: states() == {})


def test_a_worker_that_fails_its_check_is_unhealthy(platform: Any) -> None:
    """'Unhealthy: Crashed' (docs.runpod.io, serverless/workers/overview, worker states)."""
    params = {"key": platform.config.worker_key, "status": "unhealthy", "check": "model", "reason": "none"}
    platform.http.get("/ping/w", params=params).raise_for_status()

    assert platform.call("GET", "/health")["workers"] == {
        "idle": 0,
        "initializing": 0,
        "ready": 0,
        "running": 0,
        "throttled": 0,
        "unhealthy": 1,
    }
