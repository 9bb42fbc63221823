"""One HTTP exchange: what comes back, within which bounds, and how it fails."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from yarl import URL

from tests.helpers.picture_sources import Answer, answer, drip, hosting
from worker import http


def _get(url: str, **options: Any) -> http.Response:
    return http.request(
        "GET", URL(url), **{"headers": {}, "anywhere": True, "max_bytes": 1_000, "timeout_s": 5, **options}
    )


def test_an_answer() -> None:
    with hosting(answer(b"hello", 201, X_Canary="1")) as host:
        response = _get(host.url(), headers={"Accept": "text/plain"})
        assert (response.status, response.body, response.complete) == (201, b"hello", True)
        assert response.headers["x-canary"] == response.headers["X-Canary"] == "1"
        assert host.headers[0]["Accept"] == "text/plain" and host.headers[0]["Accept-Encoding"] == "identity"


def test_inside_a_running_loop_where_the_sdk_calls() -> None:
    async def caller(url: str) -> bytes:
        return _get(url).body

    with hosting(answer(b"hello")) as host:
        assert asyncio.run(caller(host.url())) == b"hello"


@pytest.mark.parametrize(
    ("max_bytes", "body", "complete"), [(6, b"hello", True), (5, b"hello", True), (4, b"hell", False)]
)
def test_a_body_that_is_too_long_is_cut(max_bytes: int, body: bytes, complete: bool) -> None:
    with hosting(answer(b"hello")) as host:
        response = _get(host.url(), max_bytes=max_bytes)
        assert (response.body, response.complete) == (body, complete)


def test_a_body_that_nobody_wants_is_not_read() -> None:
    with hosting(answer(b"hello", 404)) as host:
        assert _get(host.url(), body_of=(200,)).body == b""


def test_a_redirect_is_an_answer() -> None:
    with hosting(answer(b"", 302, Location="/canary")) as host:
        assert _get(host.url()).headers["Location"] == "/canary"
        assert host.asked == ["/picture"]


CUT: Answer = answer(b"hello", 200, Content_Length="9999")


@pytest.mark.parametrize(
    ("scheme", "options", "kind"),
    [
        ("http", {"timeout_s": 0}, TimeoutError),
        ("http", {"anywhere": False}, ConnectionRefusedError),
        ("https", {}, ssl.SSLError),
        ("http", {}, ConnectionError),
    ],
    ids=["time", "address", "certificate", "transfer"],
)
def test_failures_are_standard_and_tell_no_address(scheme: str, options: dict[str, Any], kind: type[OSError]) -> None:
    with hosting(CUT) as host:
        url = host.url("/canary").replace("http", scheme)
        with pytest.raises(OSError) as caught:
            _get(url, max_bytes=100_000, **options)
        assert type(caught.value) is kind
        assert "canary" not in str(caught.value) and str(host.port) not in str(caught.value)


# What ends it early

LONG_S = 20.0


class NotWantedError(Exception):
    """What a check raises here."""


def _refuse() -> None:
    raise NotWantedError


@pytest.fixture
def silent_name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names are asked for and nothing is answered, until the test is over."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    yield
    over.set()


SLOW = {
    "silence": lambda request: time.sleep(10),
    "headers": drip(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x"),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_check_that_raises_ends_it_at_once_however_slowly_it_comes(kind: str) -> None:
    with hosting(SLOW[kind]) as host:
        started = time.monotonic()
        with pytest.raises(NotWantedError):
            _get(host.url(), timeout_s=LONG_S, check=_refuse)
        assert time.monotonic() - started < 5.0
        assert host.asked == ["/picture"], "it was under way"


def test_a_check_that_raises_ends_the_sending_of_a_body() -> None:
    """To a host that takes the connection and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = URL(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(NotWantedError):
            http.request(
                "PUT",
                url,
                headers={},
                body=bytes(50_000_000),
                anywhere=True,
                max_bytes=1,
                timeout_s=LONG_S,
                check=_refuse,
            )


def test_it_is_checked_all_the_time() -> None:
    checked: list[float] = []
    with hosting(SLOW["body"]) as host, pytest.raises(TimeoutError):
        _get(host.url(), timeout_s=1.5, check=lambda: checked.append(time.monotonic()))
    assert len(checked) >= 4


def test_a_check_that_raises_nothing_changes_nothing() -> None:
    def late(request: Any) -> None:
        time.sleep(0.5)
        answer(b"hello")(request)

    with hosting(late) as host:
        assert _get(host.url(), check=lambda: None).body == b"hello"


@pytest.mark.usefixtures("silent_name_server")
@pytest.mark.parametrize(
    ("options", "kind"), [({"timeout_s": 0.5}, TimeoutError), ({"timeout_s": LONG_S, "check": _refuse}, NotWantedError)]
)
def test_a_name_server_that_says_nothing_is_not_waited_for(options: dict[str, Any], kind: type[Exception]) -> None:
    started = time.monotonic()
    with pytest.raises(kind):
        _get("http://pictures.example/", **options)
    assert time.monotonic() - started < 5.0


# What is received piece by piece


def test_a_body_can_be_taken_as_it_comes() -> None:
    body, taken, heads = bytes(3_000_000), bytearray(), []

    def receive(status: int, headers: Any) -> Any:
        heads.append((status, headers["X-Canary"]))
        return taken.extend

    with hosting(answer(body, 206, X_Canary="1")) as host:
        response = _get(host.url(), max_bytes=10, receive=receive)
    assert (bytes(taken), heads) == (body, [(206, "1")])
    assert (response.status, response.body, response.complete) == (206, b"", True)


def test_one_that_is_not_taken_is_an_answer_like_any() -> None:
    with hosting(answer(b"hello", 404)) as host:
        assert _get(host.url(), receive=lambda status, headers: None).body == b"hello"


def test_what_receives_it_may_end_it() -> None:
    def refuse(piece: bytes) -> None:
        raise NotWantedError

    with hosting(SLOW["body"]) as host, pytest.raises(NotWantedError):
        _get(host.url(), receive=lambda status, headers: refuse)


def test_one_that_is_cut_short_is_no_success() -> None:
    with hosting(CUT) as host, pytest.raises(ConnectionError):
        _get(host.url(), receive=lambda status, headers: lambda piece: None)


def test_one_that_stalls_is_left() -> None:
    with hosting(SLOW["silence"]) as host:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            _get(host.url(), timeout_s=None, stall_s=0.5, receive=lambda status, headers: lambda piece: None)
        assert time.monotonic() - started < 8.0


def test_one_that_is_only_slow_is_not() -> None:
    came = bytearray()

    def take(piece: bytes) -> None:
        came.extend(piece)
        if len(came) > 30:  # one comes every 0.05 s, so that it took longer than a stall may
            raise NotWantedError

    with hosting(SLOW["body"]) as host, pytest.raises(NotWantedError):
        _get(host.url(), timeout_s=None, stall_s=1.0, receive=lambda status, headers: take)
