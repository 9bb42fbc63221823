"""A platform that fails costs no job that it has not lost itself, and little CPU; when it is back, so is the worker."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from local_endpoint import Fault

JOB = {"prompt": "a star", "steps": 2}
TROUBLE_S = 2.5
LITTLE_CPU = 0.15  # of one core; with the pauses it is about 0.01, without them all that the machine has to spare
BACK_AFTER_S = 20.0  # the longest pause is 2 s, that of the SDK after a 429 is 5 s; with room for a busy machine


@pytest.fixture(scope="module")
def worker(open_platform: Any, open_worker: Any, tiny_sd1: str) -> Iterator[Any]:
    """One worker for all troubles, which it has to survive; its platform starts again at the same address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with open_platform(port=port) as platform, open_worker(platform, env={"MODEL_NAME": tiny_sd1}) as worker:
        platform.ask(JOB)
        yield worker


@pytest.fixture
def platform(worker: Any) -> Iterator[Any]:
    assert worker.running
    yield worker.endpoint
    worker.endpoint.faults.clear()


def _cpu_share(worker: Any, seconds: float) -> float:
    """How much of one core the worker's main process uses for so long."""
    process = psutil.Process(worker.pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def _taken_after(platform: Any, relieve: Callable[[], object]) -> float:
    """Seconds from the platform's recovery until a job that waits meanwhile is taken; it is done as well."""
    waiting = platform.submit(JOB)
    recovered = time.monotonic()
    relieve()
    answer = platform.wait(waiting)
    assert answer["status"] == "COMPLETED"
    assert platform.events.story(waiting).count("result") == 1
    return float(platform.events.of("taken", job_id=waiting)[0].at - recovered)


TROUBLES = {
    "500": Fault("job-take", status=500),
    "dropped connections": Fault("job-take", drop=True),
    "429": Fault("job-take", status=429),
    "a hang": Fault("job-take", delay_s=TROUBLE_S + 1, status=504, times=1),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_takes_that_fail_cost_little_cpu_and_no_job(kind: str, worker: Any, platform: Any) -> None:
    before = len(platform.events.of("fault"))
    platform.faults.append(TROUBLES[kind])
    time.sleep(1.2)  # the take that is open has been sent before

    share = _cpu_share(worker, TROUBLE_S)

    assert 0 < len(platform.events.of("fault")) - before < 40  # hundreds without a pause
    assert share < LITTLE_CPU
    assert _taken_after(platform, platform.faults.clear) < BACK_AFTER_S


def test_a_result_that_is_answered_500_is_sent_again_and_counts_once(platform: Any) -> None:
    """The one progress update of so short a job is tried three times, the result is at its third."""
    platform.faults.append(Fault("job-done", status=500, times=5))

    job_id = platform.submit(JOB)
    answer = platform.wait(job_id)

    assert answer["status"] == "COMPLETED" and answer["output"]["images"]
    assert platform.faults[0].times == 0
    assert platform.events.story(job_id) == ["queued", "taken", "result", "completed"]


def test_a_job_that_is_cancelled_while_it_runs_harms_no_other(worker: Any, platform: Any) -> None:
    cancelled = platform.submit({"prompt": "a star", "steps": 100})
    platform.events.wait("progress", job_id=cancelled)
    platform.call("POST", f"/cancel/{cancelled}")
    following = [platform.ask({**JOB, "seed": seed}) for seed in (1, 1)]

    assert platform.call("GET", f"/status/{cancelled}")["status"] == "CANCELLED"
    story = platform.events.story(cancelled)
    assert "stop_sent" in story and "result" not in story
    assert [answer["status"] for answer in following] == ["COMPLETED"] * 2
    assert following[0]["output"]["images"] == following[1]["output"]["images"]
    assert {answer["workerId"] for answer in following} == {worker.id}


def test_a_platform_that_restarts_finds_its_worker_again(worker: Any, platform: Any) -> None:
    platform.stop()
    share = _cpu_share(worker, TROUBLE_S)
    platform.start()

    assert share < LITTLE_CPU
    assert _taken_after(platform, lambda: None) < BACK_AFTER_S


def test_a_worker_whose_platform_is_gone_still_leaves_when_it_is_told_to(worker: Any, platform: Any) -> None:
    platform.stop()
    time.sleep(1)
    worker.send(signal.SIGTERM)
    code = worker.wait(20)
    platform.start()  # for the fixture to stop

    assert code == 0
    assert worker.orphans == []
