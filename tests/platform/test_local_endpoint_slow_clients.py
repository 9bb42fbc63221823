"""No client of the local endpoint takes memory, a connection or a place in it that others need: bodies have their
bounds, unread before the key is checked, and who is slow is left."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

SOON_S = 15.0
LIMIT_S = 0.5
KEYED = "Authorization: Bearer local\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hasty(open_platform: Any) -> Iterator[Any]:
    limits = {"max_head_s": LIMIT_S, "max_body_s": LIMIT_S, "max_unread_s": LIMIT_S, "max_connections": 20}
    with open_platform(hold_s=4 * LIMIT_S, **limits) as platform:
        yield platform


def connect(platform: Any, text: str = "", window: int = 0) -> socket.socket:
    connection = socket.socket()
    if window:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    connection.settimeout(SOON_S)
    connection.connect((platform.config.host, platform.port))
    connection.sendall(text.encode())
    return connection


def head(method: str, path: str, more: str = "") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"


def status(connection: socket.socket) -> int:
    return int(connection.recv(1000).split()[1])


def is_left(connection: socket.socket, piece: bytes) -> bool:
    """Whether the endpoint ends a connection whose client sends another piece now and then, and reads nothing."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        try:
            connection.sendall(piece)
        except OSError:
            return True
        time.sleep(LIMIT_S / 5)
    return False


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        ("", b"\r\n"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        (head("GET", "/") + "GET / HT", b"T"),
        (head("POST", "/v2/local/run", KEYED + "Content-Length: 9999\r\n"), b" "),
        (head("POST", "/v2/local/run", KEYED + "Transfer-Encoding: chunked\r\n"), b"1\r\nx\r\n"),
        (head("POST", "/v2/local/job-done/w/none?key={key}", "Content-Length: 9999\r\n"), b" "),
        (head("POST", "/v2/local/run", "Content-Length: 9999\r\n"), b" "),
        (head("POST", "/nowhere", "Content-Length: 9999\r\n"), b" "),
    ],
    ids=["nothing", "head", "next head", "body", "chunks", "result", "body without key", "body of nothing"],
)
def test_who_drips_is_left(start: str, piece: bytes, hasty: Any) -> None:
    with connect(hasty, start.format(key=hasty.config.worker_key)) as connection:
        assert is_left(connection, piece)


def test_who_connects_and_says_nothing_is_left(hasty: Any) -> None:
    with connect(hasty) as connection:
        assert connection.recv(1) == b""


def test_who_does_not_read_the_answer_is_left(hasty: Any) -> None:
    job_id = hasty.submit({})
    hasty.http.get(f"/job-take/w?key={hasty.config.worker_key}")
    hasty.http.post(
        f"/job-done/w/{job_id}?key={hasty.config.worker_key}", content=b'{"output":"%b"}' % (b"x" * 9_000_000)
    )

    with connect(hasty, head("GET", f"/v2/local/status/{job_id}", KEYED), window=4096) as connection:
        assert is_left(connection, b"\r\n")


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_idle_connections_keep_nobody_out_and_nobody_who_waits_is_sent_away(hasty: Any) -> None:
    with ExitStack() as stack:
        poll = stack.enter_context(connect(hasty, head("GET", f"/v2/local/job-take/w?key={hasty.config.worker_key}")))
        hasty.events.wait("poll", worker_id="w")
        idle = [stack.enter_context(connect(hasty)) for _ in range(300)]

        with connect(hasty, head("GET", "/v2/local/health", KEYED)) as newest:
            assert status(newest) == 200, "it comes after all of them"
        assert sum(is_open(one) for one in idle) <= hasty.config.max_connections
        job_id = hasty.submit({})
        assert job_id.encode() in poll.recv(10_000)
        hasty.call("POST", f"/cancel/{job_id}")


def test_a_long_poll_is_not_slow(hasty: Any) -> None:
    """Who waits for the endpoint may wait for longer than the endpoint waits for anybody."""
    answer = hasty.http.get(f"/job-take/w?key={hasty.config.worker_key}")

    assert answer.status_code == 204


def test_headers_have_an_end(hasty: Any) -> None:
    with connect(hasty, "GET / HTTP/1.1\r\nHost: localhost\r\n") as connection:
        assert is_left(connection, b"X: " + b"a" * 100_000 + b"\r\n")


@pytest.mark.parametrize("path", ["run", "runsync", "cancel/x", "job-done/w/x", "job-stream/w/x", "nowhere"])
def test_without_a_key_no_body_is_waited_for(path: str, hasty: Any) -> None:
    with connect(hasty, head("POST", f"/v2/local/{path}", "Content-Length: 300000000\r\n")) as connection:
        assert status(connection) in (401, 404)


@pytest.mark.parametrize(("path", "limit"), [("run", 10 * 2**20), ("runsync", 20 * 2**20)])
def test_a_jobs_request_has_runpods_limit(path: str, limit: int, hasty: Any) -> None:
    with connect(hasty, head("POST", f"/v2/local/{path}", f"{KEYED}Content-Length: {limit + 1}\r\n")) as connection:
        assert status(connection) == 400

    fitting = b'{"input":"%b"}' % (b"x" * (limit - 12))
    answer = hasty.http.post(f"/{path}?wait=1000", content=fitting, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    hasty.call("POST", "/purge-queue")


@pytest.mark.parametrize("path", ["run", "runsync", "openai/v1/images/edits"])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_who_goes_before_the_end_of_a_body_leaves_no_traceback(path: str, kind: str, hasty: Any) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log = logging.getLogger("uvicorn.error")
    log.addHandler(handler)
    try:
        headers = f"Authorization: Bearer local\r\nContent-Type: {kind}\r\nContent-Length: 99\r\n"
        connect(hasty, head("POST", f"/v2/local/{path}", headers) + "{").close()
        for _ in range(5):
            time.sleep(0.05)
            hasty.call("GET", "/health")
    finally:
        log.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def test_a_body_of_unknown_length_has_the_same_limit(hasty: Any) -> None:
    with connect(hasty, head("POST", "/v2/local/run", f"{KEYED}Transfer-Encoding: chunked\r\n")) as connection:
        for _ in range(11):
            connection.sendall(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")
        assert status(connection) == 400


def test_of_a_result_that_is_too_long_nothing_is_waited_for(hasty: Any) -> None:
    path = f"/v2/local/job-done/w/long?key={hasty.config.worker_key}"
    with connect(hasty, head("POST", path, "Content-Length: 100000000\r\n")) as connection:
        assert status(connection) == 400
    assert hasty.events.wait("refused", job_id="long").data["bytes"] == 100_000_000


def test_a_stream_that_nobody_reads_has_an_end(hasty: Any) -> None:
    job_id, key = hasty.submit({}), {"key": hasty.config.worker_key}
    hasty.http.get("/job-take/w", params=key)
    chunk = b'{"output":"%b"}' % (b"x" * 4_000_000)

    given = [hasty.http.post(f"/job-stream/w/{job_id}", params=key, content=chunk).status_code for _ in range(3)]
    read = hasty.call("GET", f"/stream/{job_id}")["stream"]

    assert given == [200, 200, 400] and len(read) == 2
    assert hasty.http.post(f"/job-stream/w/{job_id}", params=key, content=chunk).status_code == 200
    hasty.call("POST", f"/cancel/{job_id}")
