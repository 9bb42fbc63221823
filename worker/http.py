"""One HTTP exchange, by default with a public address only. Knows sockets; not what is sent or fetched, nor why.

A URL that a stranger names may try to make this process reach what only it can reach. Therefore the address is judged
at the one place where a socket is made for it: whatever spelled or resolved to it, only a public one is dialled.
Redirects are not followed, so that each is judged like any other URL. Proxies from the environment are not used,
because through one it is not this process that chooses the address.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

MAX_URL_LENGTH = 8_000
CHECK_S = 0.2  # between two looks at whether an exchange under way is still wanted
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")

# Nothing is decompressed here, so that what comes is counted as it comes and nothing unfolds.
_HEADERS = {"User-Agent": "image-worker", "Accept-Encoding": "identity"}
_CHUNK_BYTES = 65_536
_PIECE_BYTES = 1_048_576  # of what is too large to be kept
# These carry an IPv4 address inside, or belong to a site, and count as global in Python or in the SDK.
_NOT_PUBLIC = [
    ip_network(network)
    for network in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "fec0::/10", "192.88.99.0/24")
]


Receive = Callable[[int, Mapping[str, str]], Callable[[bytes], None] | None]


@dataclass(frozen=True)
class Response:
    """What a host answered.

    Attributes:
        headers: whose names may be asked for in any case.
        body: as it came, not decompressed; empty if the status is none whose body was wanted.
        complete: False if the body is longer than it may be; `body` is then its beginning.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool


def request(
    method: str,
    url: "URL",
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    anywhere: bool = False,
    max_bytes: int,
    timeout_s: float | None,
    stall_s: float | None = None,
    body_of: Container[int] = range(600),
    receive: Receive = lambda status, headers: None,
    check: Callable[[], None] = lambda: None,
) -> Response:
    """Send one request and return the answer, a redirect too, in one attempt.

    Args:
        anywhere: whether an address that is not public may be dialled.
        max_bytes: of the answer's body, where it is returned.
        timeout_s: for everything together.
        stall_s: within which it connects, and says status and headers; and between any two pieces of the answer.
        body_of: the statuses whose body is read.
        receive: asked once there are status and headers; if it returns a function, that is given the body piece by
            piece, as long as it may be, and none is returned. What either raises ends the exchange.
        check: called every 0.2 s, from whichever thread; what it raises ends the exchange at once.

    Raises:
        TimeoutError: it took longer than `timeout_s`.
        ssl.SSLError: the host has no good certificate.
        ConnectionRefusedError: none of its addresses that may be dialled could be reached.
        ConnectionError: the transfer failed in another way. The text of each is the name of what went wrong, no more.
    """

    async def exchange() -> Response:
        async with (
            asyncio.timeout(timeout_s),
            _open_session(anywhere, headers, stall_s) as session,
            asyncio.timeout(stall_s) as first,
            session.request(method, url, data=body, allow_redirects=False) as response,
        ):
            first.reschedule(None)
            if take := receive(response.status, response.headers):
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    take(piece)
                return Response(response.status, response.headers, b"", complete=True)
            start = await _read(response, max_bytes + 1) if response.status in body_of else b""
            return Response(response.status, response.headers, start[:max_bytes], len(start) <= max_bytes)

    with _standard_errors():
        return _run(_watch(exchange(), check))


def _run(exchange: Coroutine[Any, Any, Response]) -> Response:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(exchange)  # here, because no thread can be started any more while the process ends
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, exchange).result()


async def _watch(exchange: Coroutine[Any, Any, Response], check: Callable[[], None]) -> Response:
    """The answer, unless `check` raises before it is there."""
    asyncio.get_running_loop().set_default_executor(_Unawaited())
    task = asyncio.create_task(exchange)
    try:
        while not (await asyncio.wait({task}, timeout=CHECK_S))[0]:
            check()
        return task.result()
    finally:
        task.cancel()


class _Unawaited(ThreadPoolExecutor):
    """Threads that nobody waits for, at the process's end either: a question to a name server cannot be taken back."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def run() -> None:
            try:
                answer = call(*arguments, **options)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(answer)

        future.set_running_or_notify_cancel()
        try:
            Thread(target=run, daemon=True).start()
        except RuntimeError:  # the process ends
            run()
        return future


@contextmanager
def _standard_errors() -> Iterator[None]:
    """Raise what anybody can tell apart without aiohttp, and nothing that holds an address."""
    import aiohttp  # here, because it takes a quarter of a second and most jobs need none of it

    try:
        yield
    except TimeoutError:
        raise
    except aiohttp.ClientSSLError as error:
        raise ssl.SSLError(1, type(error).__name__) from None
    except aiohttp.ClientConnectorError as error:
        raise ConnectionRefusedError(type(error).__name__) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ConnectionError(type(error).__name__) from None


def _open_session(anywhere: bool, headers: Mapping[str, str], stall_s: float | None) -> "ClientSession":
    """A session without proxies, cookies or decompression, and without time limits of its own but this one."""
    import aiohttp

    connector = aiohttp.TCPConnector(
        resolver=aiohttp.ThreadedResolver(), socket_factory=None if anywhere else _public_socket
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={**_HEADERS, **headers},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(sock_connect=stall_s, sock_read=stall_s),
        auto_decompress=False,
    )


def _public_socket(address: "AddrInfoType") -> socket.socket:
    """A socket for this address, made right before it is dialled.

    Raises:
        OSError: the address is not public; the next one of the host is tried.
    """
    family, kind, protocol, _, (ip, *_) = address
    if not is_public(str(ip)):
        raise OSError("not a public address")
    return socket.socket(family, kind, protocol)


async def _read(response: "ClientResponse", max_bytes: int) -> bytes:
    """The beginning of the body, as long as this or a little longer; all of it if it is shorter."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) >= max_bytes:
            break
    return bytes(body)


def is_public(ip: str) -> bool:
    """Whether this address belongs to the public internet."""
    from runpod.serverless.utils import rp_ssrf

    return rp_ssrf.is_safe_address(ip) and not any(ip_address(ip) in network for network in _NOT_PUBLIC)


def host_of(url: str) -> str | None:
    """The host that a URL names, fit to be shown, or None."""
    from yarl import URL

    try:
        host = (URL(url[:MAX_URL_LENGTH]).raw_host or "").lower()
    except ValueError:
        return None
    return host if HOST_NAME.fullmatch(host) else None


def is_listed(host: str, listed: str) -> bool:
    """Whether the host is the listed one, or below it if that is `*.example.com`."""
    return host.endswith(listed[1:].lower()) if listed.startswith("*.") else host == listed.lower()
