"""A URL from a job -> the bytes behind it, from public addresses only. Knows HTTP; not what the bytes are.

A job's URL may try to make the worker read what only the worker can reach. Therefore the address is judged at the one
place where a socket is made for it: whatever spelled, resolved or redirected to it, only a public one is dialled.
Proxies from the environment are not used, because through one it is not this process that chooses the address.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

log = logging.getLogger("worker")

MOST_REDIRECTS = 3
LONGEST_URL = 8_000
_HEADERS = {
    "User-Agent": "image-worker",
    "Accept": "image/png, image/jpeg, image/webp",
    "Accept-Encoding": "identity",  # what comes is counted as it comes; nothing unfolds
}
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_NEVER_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")
# These carry an IPv4 address inside, or belong to a site, and count as global in Python or in the SDK.
_NOT_PUBLIC = [
    ip_network(network)
    for network in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "fec0::/10", "192.88.99.0/24")
]


class Unusable(Exception):
    """A picture cannot be had. The text is for the caller: a sentence of ours, never one of a socket or a codec."""


def fetch(url: str, hosts: Sequence[str], max_bytes: int, timeout_s: float) -> bytes:
    """What a GET of this URL answers with, in one attempt.

    Args:
        hosts: the only ones allowed, on any port, `*.example.com` for all below one; empty: any public host, on the
            web's own ports.
        timeout_s: for everything together, except that a name server may take its own time once per redirect.

    Raises:
        Unusable: it may not or cannot be fetched, or is larger than `max_bytes`.
    """
    # The SDK calls the handler inside its event loop, where no second loop can run: hence the thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _fetch(url, hosts, max_bytes, timeout_s)).result()


def host_of(url: str) -> str | None:
    """The host that a URL names, fit to be shown, or None."""
    from yarl import URL

    try:
        host = (URL(url[:LONGEST_URL]).raw_host or "").lower()
    except ValueError:
        return None
    return host if _HOST.fullmatch(host) else None


def open_session(anywhere: bool = False, **options: Any) -> "ClientSession":
    """An HTTP session that dials public addresses only, or any; without proxies, cookies or decompression."""
    import aiohttp

    connector = aiohttp.TCPConnector(
        resolver=aiohttp.ThreadedResolver(), socket_factory=None if anywhere else _public_socket
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),  # the caller sets the deadline
        auto_decompress=False,
        **options,
    )


async def _fetch(url: str, hosts: Sequence[str], max_bytes: int, timeout_s: float) -> bytes:
    import aiohttp

    try:
        async with asyncio.timeout(timeout_s), open_session(headers=_HEADERS) as session:
            return await _follow(session, url, hosts, max_bytes)
    except TimeoutError:
        raise Unusable(f"fetching it took longer than {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: what a redirect names is no URL
        log.warning("fetching a picture from %s failed: %s", host_of(url), type(error).__name__)
        if isinstance(error, aiohttp.ClientSSLError):
            raise Unusable("no secure connection could be made; is the host's certificate valid?") from None
        if isinstance(error, aiohttp.ClientConnectorError):
            raise Unusable("no public address of that host could be reached directly") from None
        raise Unusable("the transfer failed; the host may be asked again") from None


async def _follow(session: "ClientSession", url: str, hosts: Sequence[str], max_bytes: int) -> bytes:
    for _ in range(1 + MOST_REDIRECTS):
        async with session.get(_checked(url, hosts), allow_redirects=False) as response:
            if response.status not in (301, 302, 303, 307, 308):
                return await _body(response, max_bytes)
            url = urljoin(url, response.headers.get("Location", ""))
    raise Unusable(f"it was redirected more than {MOST_REDIRECTS} times")


async def _body(response: "ClientResponse", max_bytes: int) -> bytes:
    if response.status != 200:
        raise Unusable(f"the host answered with status {response.status}")
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > max_bytes:
            raise Unusable(f"a picture may have at most {max_bytes} bytes, this one has more")
    return bytes(body)


def _checked(text: str, hosts: Sequence[str]) -> "URL":
    """The URL, if a job may name it; its address is judged when it is dialled."""
    from yarl import URL

    if len(text) > LONGEST_URL or _NEVER_IN_URLS.search(text):
        raise Unusable(f"a URL has at most {LONGEST_URL} characters and no spaces, backslashes or control characters")
    try:
        url = URL(text, encoded=text.isascii())  # sent as it came, because a signature may cover the spelling
        host, port = (url.raw_host or "").lower(), url.port
    except ValueError:
        raise Unusable("it cannot be read as a URL") from None
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise Unusable("a URL starts with https:// or http:// and the name of a host")
    if "@" in url.raw_authority:
        raise Unusable("a URL may not carry a user name or password")
    if hosts and not any(is_listed(host.removesuffix("."), listed) for listed in hosts):
        raise Unusable(f"this endpoint takes pictures from {', '.join(hosts)} only")
    if not hosts and port not in (80, 443):
        raise Unusable("a URL may use the ports 80 and 443 only")
    return url


def is_listed(host: str, listed: str) -> bool:
    """Whether the host is the listed one, or below it if that is `*.example.com`."""
    return host.endswith(listed[1:].lower()) if listed.startswith("*.") else host == listed.lower()


def _public_socket(address: "AddrInfoType") -> socket.socket:
    """A socket for this address, made right before it is dialled.

    Raises:
        OSError: the address is not public; the next one of the host is tried.
    """
    family, kind, protocol, _, (ip, *_) = address
    if not is_public(str(ip)):
        raise OSError("not a public address")
    return socket.socket(family, kind, protocol)


def is_public(ip: str) -> bool:
    """Whether this address belongs to the public internet."""
    from runpod.serverless.utils import rp_ssrf

    return rp_ssrf.is_safe_address(ip) and not any(ip_address(ip) in network for network in _NOT_PUBLIC)
