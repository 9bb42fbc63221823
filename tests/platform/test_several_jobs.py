"""JOBS_AT_ONCE: each job has its own answer, failure and end, and a worker that leaves loses none of them."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

PACED = Path(__file__).with_name("paced_worker.py")
FOUR = {"JOBS_AT_ONCE": "4"}


@pytest.fixture(scope="module")
def let_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Once it is there, nothing keeps the worker waiting."""
    return tmp_path_factory.mktemp("several_jobs") / "let go"


@pytest.fixture(scope="module")
def platform(open_platform: Any) -> Iterator[Any]:
    """It keeps requests for jobs open for as long as RunPod's."""
    with open_platform(hold_s=60.0) as platform:
        yield platform


@pytest.fixture(scope="module")
def next_worker(platform: Any, open_worker: Any, tiny_sd1: str, let_go: Path) -> Iterator[Callable[[], Any]]:
    """Gives the worker that lives, or a new one when that has left; it takes four jobs at once."""
    env = {"MODEL_NAME": tiny_sd1, **FOUR, "JOB_TIMEOUT_S": "10", "PACED_LET_GO": str(let_go)}
    with ExitStack() as stack:
        started: list[Any] = []

        def found() -> Any:
            if not started or not started[-1].running:
                let_go.unlink(missing_ok=True)
                started.append(stack.enter_context(open_worker(platform, PACED, env=env)))
            return started[-1]

        yield found


@pytest.fixture
def scene(platform: Any, next_worker: Callable[[], Any]) -> Any:
    """The platform, and behind it a worker that lives."""
    next_worker()
    return platform


def test_each_has_its_own_answer(scene: Any) -> None:
    seeds = {scene.submit({"prompt": "draw 0.1", "seed": seed}): seed for seed in range(12)}
    answers = {job_id: scene.wait(job_id) for job_id in seeds}

    assert {job_id: answer["output"]["seed"] for job_id, answer in answers.items()} == seeds
    assert [scene.events.story(job_id).count("result") for job_id in seeds] == [1] * 12


def test_what_goes_wrong_with_one_is_that_ones(scene: Any) -> None:
    prompts = ["draw 0.2", "draw 0.1 fail", "draw 0.2", "draw 0.2"]
    sent = [scene.submit({"prompt": prompt, "seed": seed}) for seed, prompt in enumerate(prompts)]
    refused = scene.submit({"prompt": "draw 0.1", "steps": -1})
    answers = [scene.wait(job_id) for job_id in sent]

    assert [answer["status"] for answer in answers] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert [answer["output"].get("seed") for answer in answers] == [0, None, 2, 3]
    assert scene.wait(refused)["output"]["code"] == "INVALID_INPUT"


def test_a_refused_job_does_not_wait_for_those_that_are_drawn(scene: Any) -> None:
    drawn = scene.submit({"prompt": "draw 3"})
    scene.events.wait("progress", job_id=drawn)
    refused = scene.submit({"prompt": "draw 0.1", "steps": -1})

    assert scene.wait(refused)["output"]["code"] == "INVALID_INPUT"
    assert scene.events.story(drawn).count("result") == 0, "it was still being drawn"
    assert scene.wait(drawn)["status"] == "COMPLETED"


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=["the one being drawn", "one that waits", "the last"])
def test_a_cancel_stops_that_job_alone(cancelled: int, scene: Any) -> None:
    jobs = [scene.submit({"prompt": "draw 1.5", "seed": seed}) for seed in range(3)]
    for job_id in jobs:
        scene.events.wait("taken", job_id=job_id)
    scene.events.wait("progress", job_id=jobs[0])
    scene.call("POST", f"/cancel/{jobs[cancelled]}")

    statuses = [scene.wait(job_id)["status"] for job_id in jobs]
    assert statuses == ["CANCELLED" if number == cancelled else "COMPLETED" for number in range(3)]
    assert "result" not in scene.events.story(jobs[cancelled])


def test_each_has_its_own_time(scene: Any) -> None:
    """One that waits behind a job whose time runs out still has its own."""
    long = scene.submit({"prompt": "draw 60"})
    scene.events.wait("progress", job_id=long)
    time.sleep(3)
    short = scene.submit({"prompt": "draw 0.2"})

    assert scene.wait(long)["output"]["code"] == "JOB_TIMEOUT"
    assert scene.wait(short)["status"] == "COMPLETED"


def _offer(platform: Any) -> list[str]:
    """The ids of jobs that are offered at once, half a second and two seconds later."""
    offered = []
    for pause in (0.0, 0.5, 1.5):
        time.sleep(pause)
        offered.append(platform.submit({"prompt": "draw 0.1"}))
    return offered


def test_a_job_that_is_cancelled_as_soon_as_it_is_handed_out_is_not_drawn(scene: Any) -> None:
    for pause in (0.0, 0.03, 0.06, 0.1):
        job_id = scene.submit({"prompt": "draw 20"})
        scene.events.wait("taken", job_id=job_id)
        time.sleep(pause)
        scene.call("POST", f"/cancel/{job_id}")
        assert scene.wait(scene.submit({"prompt": "draw 0.1"}), 10)["status"] == "COMPLETED"
        assert "result" not in scene.events.story(job_id)


def test_a_broken_worker_is_handed_nothing_more_and_delivers_what_it_has(
    platform: Any, next_worker: Callable[[], Any], let_go: Path
) -> None:
    worker = next_worker()
    encoding = platform.submit({"prompt": "draw 0.1 encode 60"})
    platform.events.wait("taken", job_id=encoding)
    breaking = platform.submit({"prompt": "draw 0.5 break"})
    assert platform.wait(breaking)["output"]["code"] == "WORKER_BROKEN"
    offered = _offer(platform)

    assert platform.events.story(encoding).count("result") == 0, "it was still in hand"
    let_go.touch()
    assert platform.wait(encoding)["status"] == "COMPLETED"
    assert worker.wait(20) == 1
    assert worker.orphans == []
    assert [platform.events.story(job_id) for job_id in offered] == [["queued"]] * 3


def test_a_worker_that_is_told_to_stop_runs_whatever_it_has_been_handed_and_hears_of_cancels(
    start_platform: Any, open_worker: Any, tiny_sd1: str
) -> None:
    platform = start_platform(hold_s=60.0)
    with open_worker(platform, PACED, env={"MODEL_NAME": tiny_sd1, **FOUR}) as worker:
        running = platform.submit({"prompt": "draw 60"})
        platform.events.wait("progress", job_id=running)
        behind = platform.submit({"prompt": "draw 0.1"})
        platform.events.wait("poll", count=3)  # one brought each of them, and by now it has the second
        worker.send(signal.SIGTERM)
        offered = _offer(platform)

        assert not {"result"} & {*platform.events.story(running), *platform.events.story(behind)}, "still in hand"
        platform.call("POST", f"/cancel/{running}")
        assert platform.wait(behind)["status"] == "COMPLETED"
        assert worker.wait(20) == 0
        assert worker.orphans == []
        assert platform.call("GET", f"/status/{running}")["status"] == "CANCELLED"
        for job_id in offered:
            story = platform.events.story(job_id)
            assert story == ["queued"] or "result" in story
