"""Connections that cannot be held for nothing: each waits so long for its client, and so many are open at most.

uvicorn closes a connection that is idle after an answer, and no other.
"""

import asyncio
import time
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from local_endpoint.config import EndpointConfig

MAX_REFUSED_S = 5.0  # in which the rest of a body that nobody wants is read, so that its sender sees the answer
# What a connection waits for, and what changes when there is progress.
Wait = tuple[str, object]


class BoundedConnection(H11Protocol):
    """A connection with limits; `bound` makes the class of an endpoint's own."""

    limits: ClassVar[EndpointConfig]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more than may be open closes the one that has been idle for longest, or itself when none is."""
        super().connection_made(transport)
        self._wait: Wait = ("", None)
        self._since = self._idle_since = time.monotonic()
        if len(self.connections) > self.limits.max_connections:
            idle = [one for one in self.connections if isinstance(one, BoundedConnection) and one._is_idle()]
            min(idle, key=lambda one: one._idle_since, default=self).transport.abort()

    def on_response_complete(self) -> None:
        """Notes when the connection has become idle."""
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def close_if_overdue(self) -> None:
        """Closes the connection if its client has taken too long over what it is to do next."""
        wait, now = self._what_it_waits_for(), time.monotonic()
        if wait != self._wait:
            self._wait, self._since = wait, now
        if now - self._since > self._limit(wait[0]):
            self.transport.abort()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _what_it_waits_for(self) -> Wait:
        if unread := self.transport.get_write_buffer_size():
            return "reader", unread
        if self.conn.their_state is h11.SEND_BODY:
            return "refused body" if self._is_idle() else "body", self.cycle
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            return "head", self.cycle
        return "", None

    def _limit(self, what: str) -> float:
        limits = self.limits
        return {
            "reader": limits.max_unread_s,
            "refused body": min(MAX_REFUSED_S, limits.max_body_s),
            "body": limits.max_body_s,
            "head": limits.max_head_s,
        }.get(what, float("inf"))


def bound(config: EndpointConfig) -> type[BoundedConnection]:
    """The class of an endpoint's connections."""
    return type("EndpointConnection", (BoundedConnection,), {"limits": config})
