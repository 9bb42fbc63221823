"""Tells a caller's webhook how a job ended: three tries, as the platform does.

A webhook may be at a public address, as with the worker's pictures, or on this machine, where who tries things out has
it. Whatever leads elsewhere, by its name or by a redirect, is not called; nor is what it answers read.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from yarl import URL

from local_endpoint.config import EndpointConfig
from local_endpoint.doors import is_loopback
from local_endpoint.events import EventLog
from local_endpoint.jobs import Job
from local_endpoint.wire import write_json
from worker import http

TRIES = 3
TIMEOUT_S = 30.0
_NEVER_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")
log = logging.getLogger(__name__)


def check_url(text: str) -> str:
    """The same text. Raises ValueError when nothing could be posted to it."""
    _parse(text)
    return text


async def deliver(job: Job, config: EndpointConfig, events: EventLog) -> None:
    """Posts the job's answer to its webhook until it answers 200."""
    assert job.webhook is not None
    body = write_json(job.answer())
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(config.webhook_retry_s)
        status = await _try(job, body, config)
        events.record("webhook", job.id, status=status)
        if status == 200:
            return


async def _try(job: Job, body: bytes, config: EndpointConfig) -> int:
    """The status that the webhook answers with, 0 if there is none."""
    try:
        return await _post(str(job.webhook), body, config.webhook_hosts)
    except (ValueError, OSError) as error:  # a time-out is an OSError, too
        log.warning("webhook of job %s: %s", job.id, error or type(error).__name__)
        return 0


async def _post(text: str, body: bytes, hosts: tuple[str, ...]) -> int:
    url = _parse(text)
    host = str(url.raw_host).lower().removesuffix(".")
    over = threading.Event()

    def check() -> None:
        if over.is_set():
            raise ConnectionAbortedError("no longer wanted")

    def exchange() -> int:
        return http.request(
            "POST",
            url,
            headers={"Content-Type": "application/json"},
            body=body,
            anywhere=is_loopback(host) or any(http.is_listed(host, listed) for listed in hosts),
            max_bytes=0,
            timeout_s=TIMEOUT_S,
            body_of=(),
            check=check,
        ).status

    try:
        return await _run_apart(exchange)
    finally:
        over.set()


async def _run_apart(call: Callable[[], int]) -> int:
    """What a call returns or raises, made in a thread that nobody waits for when the endpoint ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def settle(settle_with: Callable[[Any], None], outcome: Any) -> None:
        if not done.done():
            settle_with(outcome)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], Any] = done.set_result, call()
        except Exception as error:
            outcome = done.set_exception, error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="webhook", daemon=True).start()
    return await done


def _parse(text: str) -> URL:
    if len(text) > http.MAX_URL_LENGTH or _NEVER_IN_URLS.search(text):
        raise ValueError(f"a URL has at most {http.MAX_URL_LENGTH} characters, no spaces and no control characters")
    try:
        url = URL(text, encoded=text.isascii())
        host, port = (url.raw_host or "").lower(), url.port
    except ValueError:
        raise ValueError("it cannot be read as a URL") from None
    if url.scheme not in ("http", "https") or not port or not http.HOST_NAME.fullmatch(host):
        raise ValueError("a URL starts with https:// or http:// and the name of a host")
    if "@" in url.raw_authority:
        raise ValueError("a URL may not carry a user name or password")
    return url
