"""A cancelled job stops at its next step, or wherever it waits; nothing of it is told any more, and the next job is as
ever."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.helpers.faulty_proxy import Fault, FaultyProxy, in_front_of
from tests.helpers.picture_sources import Host, hosting
from tests.helpers.s3_server import serve

SIZE = {"width": 64, "height": 64, "delivery": "base64"}
LONG = {"prompt": "a red heart", "seed": 1, "steps": 10_000, **SIZE}  # minutes
SHORT = {"prompt": "a blue star", "seed": 2, "steps": 3, **SIZE}
AFTER_S = 2.0  # for which nothing may follow; progress is told every half second
HANG_S = 120.0  # of a host or a bucket, unless it is let go
SOON_S = 20.0  # with much room for a busy machine


@dataclass(frozen=True)
class Hanging:
    """A worker that a job can keep waiting, for a host or for a bucket.

    Attributes:
        let_go: has both answer.
    """

    platform: Any
    host: Host
    proxy: FaultyProxy
    let_go: threading.Event

    def keep_waiting(self, place: str) -> str:
        """The id of a job that now waits there."""
        fields = {"fetching its picture": {"image": self.host.url()}, "uploading": {"delivery": "s3"}}[place]
        asked = len(self.host.asked) + len(self.proxy.seen)
        job_id = str(self.platform.submit({**SHORT, **fields}))
        deadline = time.monotonic() + SOON_S
        while len(self.host.asked) + len(self.proxy.seen) == asked:
            assert time.monotonic() < deadline, self.platform.events.story(job_id)
            time.sleep(0.02)
        return job_id


@pytest.fixture(scope="module")
def hanging(
    open_platform: Any, open_worker: Any, tiny_sd1: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hanging]:
    """A platform and a worker with a tiny model, whose host and bucket hang."""
    with ExitStack() as stack:
        let_go = threading.Event()
        host = stack.enter_context(hosting(lambda _: let_go.wait(HANG_S)))
        server = stack.enter_context(serve(tmp_path_factory.mktemp("s3")))
        proxy = stack.enter_context(in_front_of(server.url))
        proxy.faults.append(Fault("PUT", delay_s=HANG_S, let_go=let_go))
        platform = stack.enter_context(open_platform())
        settings = {"MODEL_NAME": tiny_sd1, "MAX_STEPS": "10000", "ALLOWED_IMAGE_HOSTS": "127.0.0.1"}
        settings |= {**server.environment(), "BUCKET_ENDPOINT_URL": proxy.url}
        stack.enter_context(open_worker(platform, "tests/platform/fetching_worker.py", env=settings))
        stack.callback(let_go.set)
        yield Hanging(platform, host, proxy, let_go)


@pytest.fixture
def scene(hanging: Hanging) -> Any:
    """Its platform, for jobs that wait for nobody."""
    return hanging.platform


def _start(platform: Any, **fields: Any) -> str:
    """The id of a job that is being drawn."""
    job_id = str(platform.submit({**LONG, **fields}))
    platform.events.wait("progress", job_id=job_id)
    return job_id


def _bytes(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(uri.partition(",")[2]) for uri in answer["output"]["images"]]


def test_the_next_job_starts_within_a_step_and_the_sdks_second(scene: Any) -> None:
    expected = _bytes(scene.ask(SHORT))
    job_id = _start(scene)
    next_id = scene.submit(SHORT)

    cancelled = time.monotonic()
    scene.call("POST", f"/cancel/{job_id}")
    answer = scene.wait(next_id)

    assert answer["status"] == "COMPLETED" and _bytes(answer) == expected
    assert time.monotonic() - cancelled < SOON_S, "the job of minutes was drawn to its end"


def test_nothing_is_told_of_it_any_more(scene: Any) -> None:
    job_id = _start(scene)
    scene.call("POST", f"/cancel/{job_id}")
    assert scene.ask(SHORT)["status"] == "COMPLETED"  # by then it is over
    told = len(scene.events.of(job_id=job_id))
    time.sleep(AFTER_S)

    assert len(scene.events.of(job_id=job_id)) == told
    assert scene.call("GET", f"/status/{job_id}")["status"] == "CANCELLED"


def test_a_job_beyond_the_platforms_time_for_it_stops_too(scene: Any) -> None:
    job_id = scene.submit(LONG, policy={"executionTimeout": 2000})
    assert scene.wait(job_id)["error"] == "executionTimeout exceeded"
    ended = time.monotonic()

    assert scene.ask(SHORT)["status"] == "COMPLETED"
    assert time.monotonic() - ended < SOON_S


def test_a_job_beyond_its_time_to_live_stops_while_it_is_drawn(scene: Any) -> None:
    job_id = scene.submit(LONG, policy={"ttl": 3000})
    scene.events.wait("progress", job_id=job_id)
    scene.events.wait("timed_out", job_id=job_id)

    assert scene.ask(SHORT, timeout=SOON_S)["status"] == "COMPLETED"
    told = scene.events.story(job_id)
    time.sleep(AFTER_S)
    assert scene.events.story(job_id) == told and "stop_sent" in told
    assert not {"result", "late_result"} & set(told)


def test_a_job_beyond_its_time_to_live_while_it_waits_is_never_handed_out(scene: Any) -> None:
    job_id = _start(scene)
    waiting = scene.submit(SHORT, policy={"ttl": 1000})
    scene.events.wait("timed_out", job_id=waiting)
    scene.call("POST", f"/cancel/{job_id}")

    assert scene.ask(SHORT, timeout=SOON_S)["status"] == "COMPLETED"
    assert "taken" not in scene.events.story(waiting)


def test_many_in_a_row_leave_the_worker_as_it_was(scene: Any) -> None:
    expected = _bytes(scene.ask(SHORT))
    for _ in range(3):
        scene.call("POST", f"/cancel/{_start(scene)}")

    assert _bytes(scene.ask(SHORT)) == expected


@pytest.mark.parametrize("place", ["fetching its picture", "uploading"])
def test_one_that_waits_for_others_keeps_nobody_waiting(place: str, hanging: Hanging) -> None:
    platform = hanging.platform
    hanging.let_go.clear()
    expected = _bytes(platform.ask(SHORT))
    job_id = hanging.keep_waiting(place)
    platform.call("POST", f"/cancel/{job_id}")

    answer = platform.ask(SHORT, timeout=SOON_S)

    assert answer["status"] == "COMPLETED" and _bytes(answer) == expected
    told = len(platform.events.of(job_id=job_id))
    hanging.let_go.set()  # the host and the bucket answer now
    time.sleep(AFTER_S)
    assert len(platform.events.of(job_id=job_id)) == told
    assert not platform.events.of("result", "late_result", job_id=job_id)
