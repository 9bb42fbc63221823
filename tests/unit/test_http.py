"""One HTTP exchange: what comes back, within which bounds, and how it fails."""

import asyncio
import ssl
from typing import Any

import pytest
from yarl import URL

from tests.helpers.picture_sources import Answer, answer, hosting
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
