"""A job that is cancelled while a host or a bucket keeps it waiting ends there, and leaves the worker free."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.faulty_proxy import Fault, FaultyProxy, in_front_of
from tests.helpers.picture_sources import Host, drip, hosting
from tests.helpers.s3_server import S3Server, serve

WORKER = Path(__file__).with_name("neighbourly_worker.py")
SHORT = {"prompt": "a blue star", "seed": 2, "steps": 3, "width": 64, "height": 64}
AT_ONCE_S = 8.0  # a fetch may take 20 s, an upload 60 s
AFTER_S = 2.0  # for which nothing may follow


@dataclass
class Places:
    """A host that sends its picture too slowly, and a bucket that does not answer when it gets a second file."""

    host: Host
    bucket: S3Server
    proxy: FaultyProxy

    def fetching(self, platform: Any) -> str:
        """The id of a job whose picture is on its way."""
        job_id = str(platform.submit({**SHORT, "image": self.host.url()}))
        _wait(lambda: bool(self.host.asked))
        return job_id

    def uploading(self, platform: Any) -> str:
        """The id of a job whose second file is on its way."""
        self.proxy.faults[:] = [Fault("/1.png", delay_s=60, times=1)]  # it can be removed
        config = {**self.bucket.s3_config(), "endpointUrl": self.proxy.url}
        job_id = str(platform.submit({**SHORT, "num_images": 2}, s3Config=config))
        _wait(lambda: any("/1.png" in line for line in self.proxy.seen))
        assert len(self.bucket.objects()) == 1
        return job_id


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    slow = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x")
    with hosting(slow) as host, serve(tmp_path) as bucket, in_front_of(bucket.url) as proxy:
        yield Places(host, bucket, proxy)


@pytest.fixture(scope="module")
def env(tiny_sd1: str) -> dict[str, str]:
    return {"MODEL_NAME": tiny_sd1, "ALLOWED_IMAGE_HOSTS": "127.0.0.1", "ALLOWED_BUCKET_HOSTS": "127.0.0.1"}


@pytest.fixture(scope="module")
def platform(open_platform: Any) -> Iterator[Any]:
    """One for all workers here."""
    with open_platform() as platform:
        yield platform


@pytest.fixture(scope="module")
def next_worker(platform: Any, open_worker: Any, env: dict[str, str]) -> Iterator[Callable[[], Any]]:
    """Gives the worker that lives, or a new one when that has left."""
    with ExitStack() as stack:
        started: list[Any] = []

        def found() -> Any:
            if not started or not started[-1].running:
                started.append(stack.enter_context(open_worker(platform, WORKER, env=env)))
            return started[-1]

        yield found


def _wait(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _nothing_was_posted(platform: Any, job_id: str) -> bool:
    told = {"result", "late_result", "late_progress", "failed", "completed"}
    return not told & {*platform.events.story(job_id)}


@pytest.mark.parametrize("start", [Places.fetching, Places.uploading])
def test_the_next_job_is_drawn_and_nothing_is_told_or_kept_of_this_one(
    start: Callable[[Places, Any], str], platform: Any, next_worker: Callable[[], Any], places: Places
) -> None:
    next_worker()
    job_id = start(places, platform)
    cancelled = time.monotonic()
    platform.call("POST", f"/cancel/{job_id}")

    assert platform.ask(SHORT)["status"] == "COMPLETED"
    _wait(lambda: places.bucket.objects() == {})
    assert time.monotonic() - cancelled < AT_ONCE_S
    time.sleep(AFTER_S)
    assert _nothing_was_posted(platform, job_id)


@pytest.mark.parametrize("start", [Places.fetching, Places.uploading])
def test_a_worker_that_is_told_to_stop_then_leaves_within_seconds(
    start: Callable[[Places, Any], str], platform: Any, next_worker: Callable[[], Any], places: Places
) -> None:
    worker = next_worker()
    job_id = start(places, platform)
    platform.call("POST", f"/cancel/{job_id}")
    worker.send(signal.SIGTERM)

    assert worker.wait(AT_ONCE_S) == 0
    assert worker.orphans == []
    assert _nothing_was_posted(platform, job_id)
    assert places.bucket.objects() == {}
