"""How often an operation may be called: so many times in any ten seconds, and so many at once.

RunPod raises these limits for endpoints with many running workers, by a number for each that it does not publish; here
they are the published ones, however many workers run.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import HTTPException

from local_endpoint.config import RATE_WINDOW_S, RateLimit


@dataclass
class _Calls:
    """The calls of one operation: when those of the window came, and how many are not answered yet."""

    times: deque[float] = field(default_factory=deque)
    open: int = 0

    def count(self, now: float) -> int:
        while self.times and now - self.times[0] >= RATE_WINDOW_S:
            self.times.popleft()
        return len(self.times)


class RateLimiter:
    """The calls of the endpoint's owner; used on the server's loop alone."""

    def __init__(self, limits: Mapping[str, RateLimit]) -> None:
        self._limits = limits
        self._calls = {operation: _Calls() for operation in limits}

    @contextmanager
    def admit(self, operation: str) -> Iterator[None]:
        """Counts a call, as open for as long as the block takes.

        Raises:
            HTTPException: 429, it is one too many; it does not count.
        """
        if operation not in self._limits:
            yield
            return
        calls = self._calls[operation]
        self._check(operation, calls, time.monotonic())
        calls.open += 1
        try:
            yield
        finally:
            calls.open -= 1

    def _check(self, operation: str, calls: _Calls, now: float) -> None:
        limit = self._limits[operation]
        if calls.count(now) >= limit.requests:
            raise _refuse(operation, f"{limit.requests} requests in {RATE_WINDOW_S:g} seconds")
        if limit.concurrent is not None and calls.open >= limit.concurrent:
            raise _refuse(operation, f"{limit.concurrent} requests at once")
        calls.times.append(now)


def _refuse(operation: str, limit: str) -> HTTPException:
    return HTTPException(429, f"too many requests: /{operation} takes {limit}")
