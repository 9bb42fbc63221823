"""A webhook may be anything: it is called where it may be, told of in the record where not, and never waited for."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_endpoint import EndpointConfig, EventLog, webhook
from local_endpoint.jobs import Job
from tests.helpers.fuzzing import examples

NO_URLS = [
    "",
    "x",
    "http://",
    "http:///path",
    "http://[::1",
    "http://x:99999/",
    "http://x:0/",
    "http://a b/",
    "http://x\n/",
    "http://\x00/",
    "http://\ud800/",
    "http://%zz/",
    "http://..",
    "https://user:password@x/",
    "http://x\\@y/",
    "ftp://x/",
    "file:///etc/passwd",
    "javascript:1",
    "http://" + "a" * 9000,
]
PRIVATE = [
    "http://10.0.0.1/",
    "http://192.168.1.1:8080/",
    "http://169.254.169.254/latest/meta-data/",
    "http://0.0.0.0/",
    "http://[fd00::1]/",
    "http://[fe80::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[2002:a00:1::]/",
    "http://167772161/",
]


def deliver(url: str, answer: bytes = b'{"output":1}', **config: Any) -> list[int]:
    """The statuses that are noted for a job with this webhook."""
    events = EventLog()
    job = Job(json.loads(answer), sync=False, execution_timeout_ms=1, ttl_ms=1, webhook=url)
    asyncio.run(webhook.deliver(job, EndpointConfig(webhook_retry_s=0, **config), events))
    return [event.data["status"] for event in events.of("webhook", job_id=job.id)]


@contextmanager
def receiver(status: int, location: str = "") -> Iterator[tuple[str, list[bytes]]]:
    heard: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", heard
    server.shutdown()
    server.server_close()


@contextmanager
def silent_host() -> Iterator[str]:
    """Accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_is_refused_by_its_field(url: str, platform: Any) -> None:
    raw = json.dumps({"input": 1, "webhook": url})
    answer = platform.http.post("/run", content=raw, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("bad request: body.webhook: ") and ";" not in answer.json()["detail"]
    assert deliver(url) == [0, 0, 0]


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_address_is_not_called(url: str) -> None:
    assert deliver(url) == [0, 0, 0]


def test_a_name_is_judged_by_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more))

    with receiver(200) as (url, heard):
        url = url.replace("127.0.0.1", "webhooks.example")
        assert deliver(url) == [0, 0, 0] and heard == []
        assert deliver(url, webhook_hosts=("webhooks.example",)) == [200] and len(heard) == 1


def test_a_redirect_is_not_followed() -> None:
    with receiver(200) as (target, heard), receiver(307, target) as (url, asked):
        assert deliver(url) == [307, 307, 307]
    assert len(asked) == 3 and heard == []


def test_any_result_can_be_told() -> None:
    with receiver(200) as (url, heard):
        job = Job({}, sync=False, execution_timeout_ms=1, ttl_ms=1, webhook=url)
        job.output = {"a\ud800": ["\udfff"]}
        asyncio.run(webhook.deliver(job, EndpointConfig(), EventLog()))
    assert json.loads(heard[0])["output"] == {"a\ud800": ["\udfff"]}


def test_a_host_that_answers_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.3)
    with silent_host() as url:
        assert deliver(url) == [0, 0, 0]


def test_nobody_waits_for_a_webhook(start_platform: Any) -> None:
    with silent_host() as url:
        platform = start_platform()
        for _ in range(12):
            platform.call("POST", f"/cancel/{platform.submit({}, webhook=url)}")
        job_id = platform.submit({})
        assert platform.call("POST", f"/cancel/{job_id}")["status"] == "CANCELLED"
        begun = time.monotonic()
        platform.stop()
        assert time.monotonic() - begun < webhook.TIMEOUT_S / 2


def test_a_webhook_that_leads_back_to_the_endpoint_makes_no_jobs(start_platform: Any) -> None:
    platform = start_platform(webhook_retry_s=0.0)
    for path in ("/run", "/runsync", "/purge-queue", "/job-done/w/x", ""):
        job_id = platform.submit({"input": {}}, webhook=platform.url + path)
        platform.call("POST", f"/cancel/{job_id}")
        platform.events.wait("webhook", job_id=job_id, count=3)

    assert {event.data["status"] for event in platform.events.of("webhook")} <= {401, 404, 405}
    assert len(platform.events.of("queued")) == 5


@examples(100)
@given(text=st.text(max_size=30) | st.from_regex(r"https?://[^/]{0,20}(:[0-9]{0,6})?(/.{0,9})?", fullmatch=True))
def test_any_text_is_a_url_or_is_refused_in_words(text: str) -> None:
    try:
        assert webhook.check_url(text) == text
    except ValueError as error:
        assert "URL" in str(error) and "\n" not in str(error)
