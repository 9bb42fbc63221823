"""A bucket that fails, in the ways networks and servers fail, costs no picture, and nothing half-delivered stays in it.

A real S3 server stands behind a proxy that plays the faults; what the server then holds is looked up in its folder.
"""

import base64
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.helpers.delivering import deliver_files
from tests.helpers.faulty_proxy import Fault, FaultyProxy, in_front_of
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, serve
from worker.api.response import write_failure
from worker.errors import DeliveryError, ResultTooLargeError
from worker.output import bucket
from worker.output.delivery import Delivery
from worker.output.encode import File
from worker.output.options import Bucket, OutputOptions

FILES = [File(bytes([index]) * 200_000, "png") for index in range(3)]
READ_TIMEOUT_S = 0.5
FOREVER_S = 3.0  # for a request that may take READ_TIMEOUT_S
SECOND = "PUT /pictures/job/1.png"
LAST = "PUT /pictures/job/2.png"


class JobsServer(S3Server):
    """The same server, with a bucket that a job has named; the worker sends there in another way."""

    def bucket(self, name: str = "pictures", secret: str = SECRET_KEY) -> Bucket:
        return replace(super().bucket(name, secret), from_job=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=[S3Server, JobsServer], ids=["owner's", "job's"])
def server(request: pytest.FixtureRequest, running: S3Server) -> S3Server:
    kind: type[S3Server] = request.param
    return kind(running.url, running.folder)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for, and no pauses between tries."""
    monkeypatch.setattr(bucket, "READ_TIMEOUT_S", READ_TIMEOUT_S)
    monkeypatch.setattr(bucket, "REQUEST_TIMEOUT_S", READ_TIMEOUT_S)
    monkeypatch.setattr(bucket, "MAX_RETRY_PAUSE_S", 0)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    """In front of an empty bucket."""
    for path in server.folder.rglob("*.png"):
        path.unlink()
    with in_front_of(server.url) as proxy:
        yield proxy


def _deliver(proxy: FaultyProxy, server: S3Server, delivery: str, limit: int = 10_000_000) -> dict[str, Any]:
    behind = replace(server.bucket().address, endpoint_url=proxy.url)
    output: Any = OutputOptions(bucket=replace(server.bucket(), address=behind), delivery=delivery)
    return deliver_files(FILES, Delivery("job", False, output, limit, None))


def _stays_inline(answer: dict[str, Any]) -> str:
    """Checks that all pictures are in the answer, and returns its one warning."""
    assert [base64.b64decode(image.partition(",")[2]) for image in answer["images"]] == [file.data for file in FILES]
    (warning,) = answer["warnings"]
    return str(warning)


def _tells_nothing(text: str, proxy: FaultyProxy) -> None:
    for secret in (ACCESS_KEY, SECRET_KEY, "Signature", "AWS4", proxy.url):
        assert secret not in text


def _puts(proxy: FaultyProxy) -> int:
    return sum(line.startswith("PUT") for line in proxy.seen)


PASSING = {
    "500 twice": (Fault(SECOND, status=500, times=2), 5),
    "503 once": (Fault(SECOND, status=503, times=1), 4),
    "a first byte that is slow": (Fault("PUT", delay_s=READ_TIMEOUT_S / 2), 3),
    "one reset in mid-body": (Fault(SECOND, reset_within=0.5, times=1), 4),
    "one answer lost": (Fault(SECOND, answer_lost=True, times=1), 4),
    "one hang": (Fault(SECOND, delay_s=FOREVER_S, times=1), 4),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_not_noticed(kind: str, proxy: FaultyProxy, server: S3Server) -> None:
    fault, puts = PASSING[kind]
    proxy.faults.append(replace(fault))

    answer = _deliver(proxy, server, "s3")

    assert answer["warnings"] == []
    assert [httpx.get(url, trust_env=False).content for url in answer["images"]] == [file.data for file in FILES]
    assert _puts(proxy) == puts


LASTING = {
    "403": Fault("PUT", status=403),
    "404": Fault("PUT", status=404),
    "503": Fault("PUT", status=503),
    "a gateway's 502 for the second": Fault(SECOND, status=502),
    "403 for the last": Fault(LAST, status=403),
    "resets in mid-body of the second": Fault(SECOND, reset_within=0.5),
    "resets before the second": Fault(SECOND, reset_within=0.0),
    "lost answers to the second": Fault(SECOND, answer_lost=True),
    "a hang at the second": Fault(SECOND, delay_s=FOREVER_S),
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_costs_no_picture_and_leaves_nothing_behind(
    kind: str, proxy: FaultyProxy, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.faults.append(LASTING[kind])

    with caplog.at_level(logging.DEBUG, "worker"):
        warning = _stays_inline(_deliver(proxy, server, "auto"))
        with pytest.raises(DeliveryError) as caught:
            _deliver(proxy, server, "s3")

    assert "pictures" in warning and "in the answer instead" in warning
    answer = write_failure(caught.value)
    assert answer["code"] == "DELIVERY_FAILED" and "refresh_worker" not in answer
    _tells_nothing(f"{warning} {answer} {caplog.text}", proxy)
    assert server.objects() == {}


def test_a_bucket_that_nobody_listens_at(server: S3Server, free_port: int) -> None:
    gone = FaultyProxy(f"http://127.0.0.1:{free_port}", ("127.0.0.1", free_port))

    assert "EndpointConnectionError" in _stays_inline(_deliver(gone, server, "auto"))
    with pytest.raises(DeliveryError) as caught:
        _deliver(gone, server, "s3")
    _tells_nothing(str(caught.value), gone)


def test_pictures_that_fit_nowhere_else_fail_with_both_reasons_told(proxy: FaultyProxy, server: S3Server) -> None:
    proxy.faults.append(Fault("PUT", status=403))

    with pytest.raises(ResultTooLargeError):
        _deliver(proxy, server, "auto", limit=1_000)

    assert server.objects() == {}


def test_a_bucket_that_lets_nothing_be_removed_is_an_error_all_the_same(proxy: FaultyProxy, server: S3Server) -> None:
    proxy.faults += [Fault(SECOND, status=403), Fault("DELETE", status=403)]

    with pytest.raises(DeliveryError):
        _deliver(proxy, server, "s3")

    assert list(server.objects()) == ["pictures/job/0.png"]  # as unreachable as before: its URL was given to nobody
    assert [urlsplit(line.split()[1]).path for line in proxy.seen if line.startswith("DELETE")] == [
        "/pictures/job/0.png",
        "/pictures/job/1.png",
    ]


def test_a_bucket_that_has_gone_is_not_waited_for_again_and_again(proxy: FaultyProxy, server: S3Server) -> None:
    """Three tries of the last picture and three of one removal, not three of each."""
    proxy.faults += [Fault(LAST, delay_s=FOREVER_S), Fault("DELETE", delay_s=FOREVER_S)]

    with pytest.raises(DeliveryError):
        _deliver(proxy, server, "s3")

    assert sum(line.startswith(LAST) for line in proxy.seen) == bucket.TRIES
    assert sum(line.startswith("DELETE") for line in proxy.seen) == bucket.TRIES == 3


def test_all_tries_have_one_deadline(proxy: FaultyProxy, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "UPLOAD_TIMEOUT_S", 1.6 * READ_TIMEOUT_S)
    proxy.faults.append(Fault("PUT", delay_s=FOREVER_S))

    with pytest.raises(DeliveryError, match="in time"):
        _deliver(proxy, server, "s3")

    assert _puts(proxy) == 2
