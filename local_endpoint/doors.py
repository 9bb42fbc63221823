"""Who may come in: by which name the endpoint is called, from which page, and with which key. No body is read before.

A web page can have its own name lead to this machine (DNS rebinding), and then counts as this endpoint's own page to
the browser; the name that it calls gives it away. A page that calls by a right name says where it is from.
"""

import hmac
import re
from ipaddress import ip_address

from fastapi import Request
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from local_endpoint.config import EndpointConfig
from local_endpoint.problems import write_problem

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?")


class NameCheck:
    """ASGI middleware that serves who calls the endpoint by its names, unless it is a page from elsewhere."""

    def __init__(self, app: ASGIApp, config: EndpointConfig) -> None:
        self.app = CORSMiddleware(app, config.allowed_origins, allow_methods=("GET", "POST"), allow_headers=("*",))
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (reason := self._object(scope)):
            return await write_problem(403, reason)(scope, receive, send)
        await self.app(scope, receive, send)

    def _object(self, scope: Scope) -> str | None:
        """What is wrong with the names in a request, if anything."""
        host = _header(scope, b"host")
        name = host_name(host)
        if name is None or not self._is_ours(name, scope):
            return f"called as {host[:200]!r}, which is no name of this endpoint; --allow-host NAME makes it one"
        origin = _header(scope, b"origin")
        if origin and origin not in self.config.allowed_origins and origin not in (f"http://{host}", f"https://{host}"):
            return f"called by a page of {origin[:200]!r}; --allow-origin ORIGIN lets its pages in"
        return None

    def _is_ours(self, name: str, scope: Scope) -> bool:
        reached = (scope.get("server") or ("",))[0]
        names = {self.config.host.lower(), reached, *(host.lower() for host in self.config.allowed_hosts)}
        return is_loopback(name) or name in names


def host_name(host: str) -> str | None:
    """The name or address in a Host header, in small letters, without brackets, port and last dot; None if none."""
    found = _HOST.fullmatch(host.lower())
    return (found[1] or found[2]).removesuffix(".") if found else None


def is_loopback(name: str) -> bool:
    """Whether a host's name or address can only mean this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def shows_callers_key(request: Request, config: EndpointConfig) -> bool:
    """Whether `Authorization: Bearer KEY`, or `Authorization: KEY`, has the key of the callers."""
    given = request.headers.get("authorization", "")
    scheme, _, key = given.partition(" ")
    return _are_equal(key.strip() if scheme.lower() == "bearer" else given, config.api_key)


def shows_workers_key(request: Request, config: EndpointConfig) -> bool:
    """Whether `Authorization` is the worker's key, or the URL has it as `key`.

    The SDK sends RUNPOD_AI_API_KEY, but prefers a key in ~/.runpod/config.toml where there is one.
    """
    given = (request.headers.get("authorization", ""), request.query_params.get("key", ""))
    return any(_are_equal(key, config.worker_key) for key in given)


def _are_equal(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), key.encode(errors="replace"))


def _header(scope: Scope, name: bytes) -> str:
    return str(next((value.decode("latin-1") for key, value in scope["headers"] if key == name), ""))
