"""A URL from a job -> the bytes behind it, from public addresses only. Knows HTTP; not what the bytes are.

A job's URL may try to make the worker read what only the worker can reach. Therefore the address is judged at the one
place where a socket is made for it: whatever spelled, resolved or redirected to it, only a public one is dialled.
Proxies from the environment are not used, because through one it is not this process that chooses the address.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from worker.errors import UnusablePictureError
from worker.http import HOST_NAME, MAX_URL_LENGTH, host_of, is_listed, open_session

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

log = logging.getLogger("worker")

MAX_REDIRECTS = 3
_HEADERS = {
    "User-Agent": "image-worker",
    "Accept": "image/png, image/jpeg, image/webp",
    "Accept-Encoding": "identity",  # what comes is counted as it comes; nothing unfolds
}
_NEVER_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")


def fetch(url: str, hosts: Sequence[str], max_bytes: int, timeout_s: float) -> bytes:
    """What a GET of this URL answers with, in one attempt.

    Args:
        hosts: the only ones allowed, on any port, `*.example.com` for all below one; empty: any public host, on the
            web's own ports.
        timeout_s: for everything together, except that a name server may take its own time once per redirect.

    Raises:
        UnusablePictureError: it may not or cannot be fetched, or is larger than `max_bytes`.
    """
    # The SDK calls the handler inside its event loop, where no second loop can run: hence the thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _fetch(url, hosts, max_bytes, timeout_s)).result()


async def _fetch(url: str, hosts: Sequence[str], max_bytes: int, timeout_s: float) -> bytes:
    import aiohttp

    try:
        async with asyncio.timeout(timeout_s), open_session(headers=_HEADERS) as session:
            return await _follow(session, url, hosts, max_bytes)
    except TimeoutError:
        raise UnusablePictureError(f"fetching it took longer than {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: what a redirect names is no URL
        log.warning("fetching a picture from %s failed: %s", host_of(url), type(error).__name__)
        if isinstance(error, aiohttp.ClientSSLError):
            raise UnusablePictureError("no secure connection could be made; is the host's certificate valid?") from None
        if isinstance(error, aiohttp.ClientConnectorError):
            raise UnusablePictureError("no public address of that host could be reached directly") from None
        raise UnusablePictureError("the transfer failed; the host may be asked again") from None


async def _follow(session: "ClientSession", url: str, hosts: Sequence[str], max_bytes: int) -> bytes:
    for _ in range(1 + MAX_REDIRECTS):
        async with session.get(_check_url(url, hosts), allow_redirects=False) as response:
            if response.status not in (301, 302, 303, 307, 308):
                return await _body(response, max_bytes)
            url = urljoin(url, response.headers.get("Location", ""))
    raise UnusablePictureError(f"it was redirected more than {MAX_REDIRECTS} times")


async def _body(response: "ClientResponse", max_bytes: int) -> bytes:
    if response.status != 200:
        raise UnusablePictureError(f"the host answered with status {response.status}")
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > max_bytes:
            raise UnusablePictureError(f"a picture may have at most {max_bytes} bytes, this one has more")
    return bytes(body)


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
