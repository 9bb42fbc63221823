"""A job's own bucket is dialled at a public address of its endpoint's host only, and gets little time and memory."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, cycle
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import SecretStr
from runpod.serverless.utils import rp_ssrf  # noqa: F401  imported here, before any deadline runs

import worker.http
from tests.helpers.delivering import deliver_files
from tests.helpers.s3_server import serve
from worker.errors import DeliveryError
from worker.output import bucket
from worker.output.address import BucketAddress
from worker.output.bucket import upload
from worker.output.delivery import Delivery
from worker.output.encode import File
from worker.output.options import Bucket, OutputOptions

FILES = [File(bytes([index]) * 100_000, "png") for index in range(2)]
Answer = Callable[[socket.socket], None]


class Host:
    """A bucket's server that reads each request and then does as it likes.

    Attributes:
        asked: the first lines of all requests, in order.
        headers: the other lines of the last one, in small letters.
    """

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        self.headers: list[str] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), client.makefile("rb") as stream:
            self.asked.append(stream.readline().decode())
            self.headers = [line.decode().strip().lower() for line in iter(stream.readline, b"\r\n")]
            (length,) = [line.partition(": ")[2] for line in self.headers if line.startswith("content-length")] or [0]
            stream.read(int(length))
            self._answer(client)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@contextmanager
def _hosting(answer: Answer) -> Iterator[Host]:
    host = Host(answer)
    try:
        yield host
    finally:
        host.close()


def _saying(status: str, body: bytes, *headers: str) -> Answer:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    return lambda client: client.sendall(head.encode() + body)


def _jobs_bucket(port: int, host: str = "127.0.0.1", name: str = "pictures") -> Bucket:
    address = BucketAddress(f"http://{host}:{port}", name)
    return Bucket(address, SecretStr("id"), SecretStr("key"), anywhere=False, from_job=True)


def _failure(of: Bucket) -> str:
    with pytest.raises(DeliveryError) as caught:
        upload(FILES, of, "job")
    return str(caught.value)


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests' own hosts be dialled; where names lead is judged as ever, but for 127.0.0.1."""
    real = worker.http.is_public
    monkeypatch.setattr(worker.http, "is_public", lambda ip: ip == "127.0.0.1" or real(ip))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for, and no pauses between tries."""
    monkeypatch.setattr(bucket, "REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr(bucket, "UPLOAD_TIMEOUT_S", 1.2)
    monkeypatch.setattr(bucket, "REMOVAL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(bucket, "MAX_RETRY_PAUSE_S", 0)


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection is attempted to, by the worker or by boto3; none is made."""
    addresses: list[str] = []

    def connect(sock: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        raise ConnectionRefusedError

    async def dial(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", dial)
    return addresses


def _resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Lets every name lead to this address, at the next question to the next."""
    turn = cycle(answers)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *a, **k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(turn), port))],
    )


# Where it is


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "2130706433"])
def test_no_address_that_is_not_public_is_dialled(dialled: list[str], host: str) -> None:
    _failure(_jobs_bucket(80, host))
    assert dialled == []


def test_a_public_address_is_dialled(dialled: list[str]) -> None:
    """Or else the tests around would prove nothing."""
    _failure(_jobs_bucket(80, "8.8.8.8"))
    assert set(dialled) == {"8.8.8.8"}


def test_a_name_that_leads_elsewhere_the_next_time(monkeypatch: pytest.MonkeyPatch, dialled: list[str]) -> None:
    _resolving(monkeypatch, "8.8.8.8", "127.0.0.1")
    _failure(_jobs_bucket(80, "bucket.example"))
    assert set(dialled) == {"8.8.8.8"}


@pytest.mark.parametrize("name", ["name--usw2-az1--x-s3", "arn:aws:s3:us-west-2:123456789012:accesspoint:x"])
@pytest.mark.parametrize("anywhere", [False, True])
def test_a_name_that_chooses_the_host_reaches_none(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str], name: str, anywhere: bool
) -> None:
    """Such names are refused in requests; this is the second lock."""
    _resolving(monkeypatch, "8.8.8.8")
    told = _failure(replace(_jobs_bucket(80, "bucket.example", name), anywhere=anywhere))
    assert told.endswith("is not at the host of s3Config.endpointUrl")
    assert dialled == []


@pytest.mark.usefixtures("public")
def test_redirects_are_not_followed() -> None:
    with (
        _hosting(_saying("200 OK", b"")) as inner,
        _hosting(_saying("307 Moved", b"", f"Location: http://127.0.0.1:{inner.port}/")) as host,
    ):
        _failure(_jobs_bucket(host.port))
        assert inner.asked == [] and host.asked[0].startswith("PUT /pictures/job/0.png")


# What it answers


def _drip(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(200):
        client.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("answer", [_drip, lambda client: time.sleep(5)], ids=["one byte after the other", "nothing"])
def test_the_deadline_holds_however_slowly_it_answers(answer: Answer) -> None:
    with _hosting(answer) as host:
        start = time.monotonic()
        assert "pictures" in _failure(_jobs_bucket(host.port))
        assert time.monotonic() - start < 3
        assert 2 <= len([line for line in host.asked if line.startswith("PUT")]) <= bucket.TRIES


@pytest.mark.usefixtures("public")
def test_many_slow_pictures_have_one_deadline_together() -> None:
    def slowly(client: socket.socket) -> None:
        time.sleep(0.3)
        _saying("200 OK", b"")(client)

    with _hosting(slowly) as host:
        start = time.monotonic()
        with pytest.raises(DeliveryError):
            upload(FILES * 10, _jobs_bucket(host.port), "job")
        assert time.monotonic() - start < 3


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
def test_little_of_an_endless_answer_is_read(status: str) -> None:
    sent = []

    def flood(client: socket.socket) -> None:
        client.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
        for _ in range(3_000):
            client.sendall(bytes(1_000_000))
            sent.append(1_000_000)

    with _hosting(flood) as host:
        _failure(_jobs_bucket(host.port))
        assert sum(sent) / len(host.asked) < 10_000_000  # which the system's own buffers hold


@pytest.mark.usefixtures("public")
def test_a_code_is_short_and_one_word(caplog: pytest.LogCaptureFixture) -> None:
    code = b"Forged\nERROR  | forged\x7f " + b"x" * 50_000
    with _hosting(_saying("403 Forbidden", b"<Error><Code>" + code + b"</Code></Error>")) as host:
        output = OutputOptions(bucket=_jobs_bucket(host.port))
        with caplog.at_level(logging.DEBUG, "worker"):
            answer = deliver_files(FILES, Delivery("job", False, output, 10_000_000, None))
    (warning,) = answer["warnings"]
    assert len(warning) < 200 and "ForgedERRORforged" in warning and "\n" not in warning
    assert len(caplog.messages[0]) < 200 and "\n" not in caplog.messages[0]


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    "body",
    [
        b"<Error><Code></Code></Error>",
        b"<Error><Code>!</Code></Error>",
        b"<Error><Code><a>b</a></Code></Error>",
        b"<Error><Code>a</Code><Code>b</Code></Error>",
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>x@127.0.0.1/#</Region></Error>",
        b"<Error><Code>PermanentRedirect</Code><Endpoint>127.0.0.1</Endpoint></Error>",
        b"<Error><Code>InvalidRequest",
        b"<a>" * 20_000,
        b"<a>" * 9_000 + b"</a>" * 9_000,
        b'<?xml version="1.0" encoding="none"?><Error/>',
        b'<?xml version="1.0" encoding="base64"?><Error/>',
        b'<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><Error><Code>&b;</Code></Error>',
        b"\xff\x00",
        b"",
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "301 Moved", "400 Bad", "503 Busy"])
def test_whatever_it_answers_is_no_fault_of_the_worker(status: str, body: bytes) -> None:
    with (
        _hosting(_saying(status, body, "x-amz-bucket-region: x@127.0.0.1/#")) as host,
        contextlib.suppress(DeliveryError),
    ):
        upload(FILES, _jobs_bucket(host.port), "job")


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\0" * 100])
def test_a_host_that_speaks_something_else(said: bytes) -> None:
    with _hosting(lambda client: client.sendall(said)) as host:
        assert "pictures" in _failure(_jobs_bucket(host.port))


def _region(url: str) -> str:
    """That a URL is signed for."""
    (credential,) = parse_qs(urlsplit(url).query)["X-Amz-Credential"]
    return credential.split("/")[2]


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    "answer",
    [
        _saying(
            "400 Bad Request", b"<Error><Code>AuthorizationQueryParametersError</Code><Region>x-1</Region></Error>"
        ),
        _saying("400 Bad Request", b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>x-1</Region></Error>"),
        _saying("301 Moved", b"<Error><Code>PermanentRedirect</Code></Error>", "x-amz-bucket-region: x-1"),
    ],
    ids=["query", "header", "redirect"],
)
def test_a_request_is_signed_again_for_the_region_that_the_server_names(answer: Answer) -> None:
    """As Amazon's servers do, whose regions an endpoint's URL does not always tell."""
    answers = iter([answer])
    with _hosting(lambda client: next(answers, _saying("200 OK", b""))(client)) as host:
        urls = upload(FILES, _jobs_bucket(host.port), "job")
        asked = [line.split()[1] for line in host.asked]
    assert [urlsplit(one).path.rpartition("/")[2] for one in asked] == ["0.png", "0.png", "1.png"]
    assert [_region(one) for one in asked] == ["auto", "x-1", "x-1"]
    assert {_region(url) for url in urls} == {"x-1"}


@pytest.mark.usefixtures("public")
def test_a_server_that_names_one_region_after_the_other_is_left() -> None:
    names = count()

    def lead(client: socket.socket) -> None:
        _saying("400 Bad Request", b"<Error><Region>x-%d</Region></Error>" % next(names))(client)

    with _hosting(lead) as host:
        assert _failure(_jobs_bucket(host.port)).endswith(": 400")
        assert len(host.asked) == 4  # one for the picture and one to remove it, each signed twice


@pytest.mark.usefixtures("public")
def test_the_type_of_a_picture_is_sent_and_signed() -> None:
    with _hosting(_saying("200 OK", b"")) as host:
        upload(FILES, _jobs_bucket(host.port), "job")
    assert "content-type: image/png" in host.headers and "content-length: 100000" in host.headers
    assert "&X-Amz-SignedHeaders=content-type%3Bhost&" in host.asked[0]
    assert not [line for line in host.headers if line.startswith(("expect:", "cookie:", "transfer-encoding:"))]


@pytest.mark.usefixtures("public")
def test_a_real_server_takes_the_pictures(tmp_path: Any) -> None:
    with serve(tmp_path) as server:
        mine = replace(server.bucket(), anywhere=False, from_job=True)
        urls = upload(FILES, mine, "job")
        assert [httpx.get(url, trust_env=False).content for url in urls] == [file.data for file in FILES]


@pytest.mark.usefixtures("public")
def test_what_a_real_server_took_before_a_failure_is_removed_again(tmp_path: Any) -> None:
    """A folder stands where the second picture would go."""
    with serve(tmp_path) as server:
        (server.folder / "pictures" / "job" / "1.png").mkdir(parents=True)
        (server.folder / "pictures" / "job" / "1.png" / "older").write_bytes(b"in the way")
        _failure(replace(server.bucket(), anywhere=False, from_job=True))
        assert list(server.objects()) == ["pictures/job/1.png/older"]
