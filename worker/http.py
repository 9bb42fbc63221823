"""HTTP that dials public addresses only."""

import re
import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp import ClientSession


MAX_URL_LENGTH = 8_000


HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")


# These carry an IPv4 address inside, or belong to a site, and count as global in Python or in the SDK.
_NOT_PUBLIC = [
    ip_network(network)
    for network in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "fec0::/10", "192.88.99.0/24")
]


def host_of(url: str) -> str | None:
    """The host that a URL names, fit to be shown, or None."""
    from yarl import URL

    try:
        host = (URL(url[:MAX_URL_LENGTH]).raw_host or "").lower()
    except ValueError:
        return None
    return host if HOST_NAME.fullmatch(host) else None


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
