"""A URL from a job -> the bytes behind it. Knows which URLs a job may name; not sockets, and not what the bytes are."""

import logging
import re
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from worker import http
from worker.clock import CLOCK
from worker.errors import UnusablePictureError
from worker.http import HOST_NAME, MAX_URL_LENGTH, is_listed
from worker.text import Own

if TYPE_CHECKING:
    from yarl import URL

log = logging.getLogger("worker")

MAX_REDIRECTS = 3
_ACCEPT = {"Accept": "image/png, image/jpeg, image/webp, image/avif, image/gif, image/bmp, image/tiff"}
_NEVER_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")


def fetch(
    url: str, hosts: Sequence[str], max_bytes: int, timeout_s: float, check: Callable[[], None] = lambda: None
) -> bytes:
    """What a GET of this URL answers with, in one attempt, or one after each freeze of this process.

    Args:
        hosts: the only ones allowed, on any port, `*.example.com` for all below one; empty: any public host, on the
            web's own ports.
        timeout_s: for everything together, without the time in which this process was frozen.
        check: called every 0.2 s meanwhile; what it raises ends it at once.

    Raises:
        UnusablePictureError: it may not or cannot be fetched, or is larger than `max_bytes`.
    """
    ends = CLOCK.running_time() + timeout_s

    def check_time() -> None:
        check()
        if CLOCK.running_time() > ends:
            raise TimeoutError

    try:
        response = _follow_through_freezes(url, hosts, max_bytes, check_time)
    except TimeoutError:
        raise UnusablePictureError(f"fetching it took longer than {timeout_s:g} s") from None
    except OSError as error:
        log.warning("fetching a picture failed: %s", Own(error))
        raise UnusablePictureError(_explain(error)) from None
    if response.status != 200:
        raise UnusablePictureError(f"the host answered with status {response.status}")
    if not response.complete:
        raise UnusablePictureError(f"a picture may have at most {max_bytes} bytes, this one has more")
    return response.body


def _follow_through_freezes(url: str, hosts: Sequence[str], max_bytes: int, check: Callable[[], None]) -> http.Response:
    """What comes of it; a host does not wait for a process that is frozen, and is asked again after that."""
    while True:
        frozen = CLOCK.frozen_time()
        try:
            return _follow(url, hosts, max_bytes, check)
        except ConnectionError:
            if CLOCK.frozen_time() == frozen:
                raise


def _follow(url: str, hosts: Sequence[str], max_bytes: int, check: Callable[[], None]) -> http.Response:
    """The first answer that is no redirect."""
    for _ in range(1 + MAX_REDIRECTS):
        response = http.request(
            "GET",
            _check_url(url, hosts),
            headers=_ACCEPT,
            max_bytes=max_bytes,
            timeout_s=None,
            body_of=(200,),
            check=check,
        )
        if response.status not in (301, 302, 303, 307, 308):
            return response
        url = _join(url, response.headers.get("Location", ""))
    raise UnusablePictureError(f"it was redirected more than {MAX_REDIRECTS} times")


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise ConnectionError("the redirect names no URL") from None


def _explain(error: OSError) -> str:
    """What the caller can do about it; where an address or a port is at fault is not told."""
    if isinstance(error, ssl.SSLError):
        return "no secure connection could be made; is the host's certificate valid?"
    if isinstance(error, ConnectionRefusedError):
        return "no public address of that host could be reached directly"
    return "the transfer failed; the host may be asked again"


def _check_url(text: str, hosts: Sequence[str]) -> "URL":
    """The URL, if a job may name it; its address is judged when it is dialled."""
    from yarl import URL

    if len(text) > MAX_URL_LENGTH or _NEVER_IN_URLS.search(text):
        raise UnusablePictureError(
            f"a URL has at most {MAX_URL_LENGTH} characters and no spaces, backslashes or control characters"
        )
    try:
        url = URL(text, encoded=text.isascii())  # sent as it came, because a signature may cover the spelling
        host, port = (url.raw_host or "").lower(), url.port
    except ValueError:
        raise UnusablePictureError("it cannot be read as a URL") from None
    if url.scheme not in ("http", "https") or not HOST_NAME.fullmatch(host):
        raise UnusablePictureError("a URL starts with https:// or http:// and the name of a host")
    if "@" in url.raw_authority:
        raise UnusablePictureError("a URL may not carry a user name or password")
    if hosts and not any(is_listed(host.removesuffix("."), listed) for listed in hosts):
        raise UnusablePictureError(f"this endpoint takes pictures from {', '.join(hosts)} only")
    if not hosts and port not in (80, 443):
        raise UnusablePictureError("a URL may use the ports 80 and 443 only")
    return url
