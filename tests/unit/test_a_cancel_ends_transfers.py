"""A job that nobody wants any more waits for no host and no bucket, and nothing of it stays in a bucket."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from runpod.serverless.utils import rp_ssrf  # noqa: F401  imported here, before any deadline runs

import worker.http
from tests.helpers.faulty_proxy import Fault, FaultyProxy, in_front_of
from tests.helpers.picture_sources import answer, base64_of, corners, drip, file_of, hosting
from tests.helpers.s3_server import S3Server, serve
from worker.errors import JobCancelledError
from worker.images.load import PictureRules, read_parameters, read_picture
from worker.output import bucket
from worker.output.bucket import upload
from worker.output.encode import File
from worker.output.options import Bucket
from worker.runtime.cancellation import Cancellation

AT_ONCE_S = 5.0  # far less than a fetch or an upload may take

SLOW_BODY = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x")
FILES = [File(bytes([index]) * 20_000_000, "png") for index in range(3)]  # more than the kernel keeps of a transfer
SECOND = "PUT /pictures/job/1.png"


def _cancel_once(seen: Callable[[], bool]) -> Cancellation:
    """A job that is cancelled as soon as this has been seen."""
    cancellation = Cancellation()

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not seen() and time.monotonic() < deadline:
            time.sleep(0.02)
        cancellation.cancel()

    threading.Thread(target=watch, daemon=True).start()
    return cancellation


# Pictures in


@pytest.fixture
def this_machine_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests' own hosts be dialled."""
    monkeypatch.setattr(worker.http, "is_public", lambda ip: ip == "127.0.0.1")


@pytest.mark.usefixtures("this_machine_is_public")
@pytest.mark.parametrize("read", [read_picture, read_parameters])
def test_a_fetch_that_is_under_way_ends(read: Callable[..., Any]) -> None:
    with hosting(SLOW_BODY) as host:
        cancellation = _cancel_once(lambda: bool(host.asked))
        rules = PictureRules(hosts=("127.0.0.1",), check=cancellation.check)
        started = time.monotonic()
        with pytest.raises(JobCancelledError):
            read("image", host.url(), rules)
    assert time.monotonic() - started < AT_ONCE_S


@pytest.mark.usefixtures("this_machine_is_public")
def test_a_cancelled_job_asks_no_host() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with hosting(answer(file_of(corners()))) as host:
        with pytest.raises(JobCancelledError):
            read_picture("image", host.url(), PictureRules(hosts=("127.0.0.1",), check=cancellation.check))
        assert host.asked == []


def test_a_cancelled_jobs_own_picture_is_not_looked_at() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(JobCancelledError):
        read_picture("image", base64_of(b"no picture"), PictureRules(check=cancellation.check))


# Pictures out


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with in_front_of(server.url) as proxy:
        yield proxy


def _bucket(server: S3Server, proxy: FaultyProxy, whose: str) -> Bucket:
    bucket = server.bucket()
    return replace(bucket, address=replace(bucket.address, endpoint_url=proxy.url), from_job=whose == "job's")


def _upload_until_cancelled(to: Bucket, proxy: FaultyProxy, files: list[File]) -> float:
    """Cancel once the second file is on its way; the seconds from then to the end."""
    at: list[float] = []

    def seen() -> bool:
        if any(SECOND in line for line in proxy.seen):
            time.sleep(0.5)  # it is under way
            at.append(time.monotonic())
        return bool(at)

    with pytest.raises(JobCancelledError):
        upload(files, to, "job", _cancel_once(seen).check)
    return time.monotonic() - at[0]


@pytest.mark.parametrize("whose", ["owner's", "job's"])
def test_an_upload_that_is_under_way_ends_and_leaves_nothing(whose: str, server: S3Server, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault(SECOND, bytes_per_s=500_000))  # 40 s of it

    assert _upload_until_cancelled(_bucket(server, proxy, whose), proxy, FILES) < AT_ONCE_S

    assert sum(line.startswith("PUT") for line in proxy.seen) == 2
    assert server.objects() == {}


def test_a_jobs_bucket_that_does_not_answer_is_not_waited_for(server: S3Server, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault(SECOND, delay_s=20))

    assert _upload_until_cancelled(_bucket(server, proxy, "job's"), proxy, [File(b"x", "png")] * 2) < AT_ONCE_S
    assert server.objects() == {}


@pytest.mark.parametrize("whose", ["owner's", "job's"])
def test_a_pause_between_two_tries_ends(
    whose: str, server: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "MAX_RETRY_PAUSE_S", 1_000_000)
    proxy.faults.append(Fault(SECOND, status=503))

    assert _upload_until_cancelled(_bucket(server, proxy, whose), proxy, [File(b"x", "png")] * 2) < AT_ONCE_S
    assert sum(SECOND in line for line in proxy.seen) == 1
    assert server.objects() == {}


def test_removing_is_bounded_where_the_bucket_has_gone(
    server: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "REMOVAL_TIMEOUT_S", 1.0)
    proxy.faults += [Fault(SECOND, delay_s=20), Fault("DELETE", delay_s=20)]

    assert _upload_until_cancelled(_bucket(server, proxy, "job's"), proxy, [File(b"x", "png")] * 2) < AT_ONCE_S
