"""A worker that is frozen for a while, as FlashBoot does it, loses no job and tells each result once; the time in which
it was frozen is not a job's."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_endpoint import Fault
from tests.helpers import faulty_proxy
from tests.helpers.s3_server import S3Server, serve

FROZEN_S = 3.0  # longer than the platform keeps connections and polls, and than counts as a freeze
CLOCK_S = 0.5  # a freeze is known as exactly as the worker looks at its clock: four times a second
JOB_TIMEOUT_S = 10.0
SOON_S = 20.0
JOB = {"prompt": "a star", "seed": 1, "steps": 3, "width": 64, "height": 64, "delivery": "base64"}
SIGNALS = {"main process": os.kill, "whole container": os.killpg}


@contextmanager
def frozen(worker: Any, kind: str = "whole container", seconds: float = FROZEN_S) -> Iterator[None]:
    """The worker is frozen in the block, and for so long at least."""
    thaw = time.monotonic() + seconds
    SIGNALS[kind](worker.pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(max(0.0, thaw - time.monotonic()))
    finally:
        SIGNALS[kind](worker.pid, signal.SIGCONT)


def drawing_time(update: dict[str, Any]) -> float:
    """The least number of seconds of drawing from which a progress update has foretold those that are left."""
    done, total = update["step"], update["total"]
    left = max(0.0, update["seconds_left"] - 0.05)  # as it may have been before it was rounded
    return float(left * done / (total - done)) if done < total else 0.0


@dataclass
class Scene:
    """A worker, and a bucket of its endpoint behind a proxy."""

    platform: Any
    worker: Any
    server: S3Server
    proxy: faulty_proxy.FaultyProxy

    def start(self, steps: int = 100) -> str:
        """The id of a job that is being drawn, for about a second."""
        job_id = str(self.platform.submit({**JOB, "steps": steps}))
        self.platform.events.wait("progress", job_id=job_id)
        return job_id

    def completes(self, job_id: str) -> dict[str, Any]:
        """The job's answer, which comes soon and once."""
        answer: dict[str, Any] = self.platform.wait(job_id, SOON_S)
        assert answer["status"] == "COMPLETED", answer
        assert len(self.platform.events.of("result", "late_result", job_id=job_id)) == 1
        return answer


@pytest.fixture(scope="module")
def scene(open_platform: Any, open_worker: Any, tiny_sd1: str, tmp_path_factory: Any) -> Iterator[Scene]:
    with ExitStack() as stack:
        server = stack.enter_context(serve(Path(tmp_path_factory.mktemp("s3"))))
        proxy = stack.enter_context(faulty_proxy.in_front_of(server.url))
        platform = stack.enter_context(open_platform(keep_alive_s=1, worker_lost_s=60.0))
        environment = {**server.environment(), "BUCKET_ENDPOINT_URL": proxy.url, "MODEL_NAME": tiny_sd1}
        environment["JOB_TIMEOUT_S"] = str(JOB_TIMEOUT_S)
        worker = stack.enter_context(open_worker(platform, env=environment))
        platform.ask(JOB)
        yield Scene(platform, worker, server, proxy)


@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("sent_after_s", [0.0, 2.0], ids=["into its open poll", "after its poll was closed"])
def test_a_job_sent_while_it_is_idle_and_frozen_is_done(sent_after_s: float, kind: str, scene: Scene) -> None:
    with frozen(scene.worker, kind):
        time.sleep(sent_after_s)
        job_id = scene.platform.submit(JOB)

    scene.completes(job_id)


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_job_frozen_in_mid_drawing_goes_on_and_so_do_progress_and_pings(kind: str, scene: Scene) -> None:
    submitted = time.monotonic()
    job_id = scene.start(steps=200)
    with frozen(scene.worker, kind):
        pass
    thawed = time.monotonic()

    scene.completes(job_id)
    pings = len(scene.platform.events.of("ping"))
    scene.platform.events.wait("ping", count=pings + 1, timeout=SOON_S)
    told = scene.platform.events.of("progress", job_id=job_id)
    steps = [event.data["output"]["step"] for event in told]
    assert steps == sorted(steps)
    assert told[-1].at > thawed
    for event in told:
        if event.at > thawed:
            assert drawing_time(event.data["output"]) < event.at - submitted - FROZEN_S + CLOCK_S


def test_the_time_of_a_job_does_not_run_while_it_is_frozen(scene: Scene) -> None:
    job_id = scene.start(steps=80)
    with frozen(scene.worker, seconds=JOB_TIMEOUT_S + 1):
        pass

    scene.completes(job_id)


def test_a_result_frozen_on_its_way_arrives_once(scene: Scene) -> None:
    """The platform answers while the worker is frozen, and has closed the connection when it is thawed."""
    platform = scene.platform
    faults = len(platform.events.of("fault"))
    platform.faults[:] = [  # the one progress update of so short a job, then its result
        Fault("job-done", times=1),
        Fault("job-done", delay_s=1.0, times=1),
    ]
    job_id = platform.submit(JOB)
    platform.events.wait("fault", count=faults + 2)
    with frozen(scene.worker):
        pass

    scene.completes(job_id)


@pytest.mark.parametrize("answer_lost", [False, True], ids=["answered", "cut off"])
def test_an_upload_frozen_on_its_way_is_done(answer_lost: bool, scene: Scene) -> None:
    """The bucket has the picture, and says so to the frozen worker or ends the connection."""
    scene.proxy.faults[:] = [faulty_proxy.Fault("PUT", delay_s=1.0, answer_lost=answer_lost, times=1)]
    seen = len(scene.proxy.seen)
    job_id = scene.platform.submit({**JOB, "delivery": "s3"})
    deadline = time.monotonic() + SOON_S
    while len(scene.proxy.seen) == seen:
        assert time.monotonic() < deadline, "nothing was sent to the bucket"
        time.sleep(0.01)
    with frozen(scene.worker):
        pass

    (url,) = scene.completes(job_id)["output"]["images"]
    assert httpx.get(url, trust_env=False).content == scene.server.objects()[f"pictures/{job_id}/0.png"]


def test_a_worker_that_was_replaced_meanwhile_does_no_harm(
    start_platform: Any, open_worker: Any, tiny_sd1: str
) -> None:
    platform = start_platform(worker_lost_s=2.0)
    with open_worker(platform, env={"MODEL_NAME": tiny_sd1}) as first:
        job_id = platform.submit({**JOB, "steps": 200})
        platform.events.wait("progress", job_id=job_id)
        with frozen(first), open_worker(platform, "tests/platform/picture_worker.py") as second:
            answer = platform.wait(job_id)
            second.stop()

        assert (answer["status"], answer["workerId"]) == ("COMPLETED", second.id)
        platform.events.wait("late_result", job_id=job_id, worker_id=first.id, timeout=SOON_S)
        assert platform.call("GET", f"/status/{job_id}") == answer
        assert platform.ask(JOB)["workerId"] == first.id


def test_a_poll_that_is_overdue_after_the_freeze_still_brings_its_job(
    start_platform: Any, open_worker: Any, tiny_sd1: str
) -> None:
    platform = start_platform(hold_s=60.0)
    environment = {"MODEL_NAME": tiny_sd1, "TEST_POLL_TIMEOUT_S": "2"}
    with open_worker(platform, "tests/platform/impatient_worker.py", env=environment) as worker:
        with frozen(worker):
            job_id = platform.submit(JOB)
            platform.events.wait("taken", job_id=job_id)

        assert platform.wait(job_id, SOON_S)["status"] == "COMPLETED"
