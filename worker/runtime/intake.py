"""Jobs from the platform: one request for them is open at a time, and it can be closed before it brings one.

With more than one job at once the SDK keeps such a request open while jobs run, and does not run what it still brings
to a worker that is leaving. Its own timer, too, can end a request whose answer lies unread in this process, because it
was frozen meanwhile. Both lose a job; hence this stands between the SDK and its fetcher.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

Jobs = list[dict[str, Any]] | None
Fetch = Callable[[Any, int], Awaitable[Jobs]]

EMPTY_REQUEST_S = 0.05  # within which a request that brought nothing did not wait for a job
FREE_EMPTY_REQUESTS = 3  # of them in a row, that nothing is made of
MAX_PAUSE_S = 2.0
UNREAD_S = 5.0  # for a request that the SDK has given up to bring what may have come for it


class Intake:
    """Fetches jobs as the SDK does, until it is closed."""

    def __init__(self, fetch: Fetch) -> None:
        """It is open.

        Args:
            fetch: the SDK's own: a session and how many jobs at most -> jobs, after as long as the platform likes.
        """
        self._fetch = fetch
        self._request: asyncio.Task[Jobs] | None = None  # the open one; still here if its caller gave it up
        self._closed = asyncio.Event()
        self._empty = 0  # requests in a row that came back empty at once

    def close(self) -> None:
        """Fetch nothing more; an open request is ended, so that no job is handed out for it."""
        self._closed.set()

    async def fetch(self, session: Any, wanted: int) -> Jobs:
        """At most `wanted` jobs, or none; once it is closed it never returns.

        A platform that is gone, or answers 500, would be asked without a pause, at the cost of a whole core; after
        some requests that come back empty at once there is a pause before each.
        """
        if self._empty > FREE_EMPTY_REQUESTS:
            await self._pause(self._empty - FREE_EMPTY_REQUESTS)
        if self._closed.is_set():
            await asyncio.Event().wait()
        asked, jobs = time.monotonic(), None
        try:
            jobs = await self._receive(session, wanted)
            return jobs
        finally:
            at_once = not jobs and time.monotonic() - asked < EMPTY_REQUEST_S
            self._empty = self._empty + 1 if at_once else 0

    async def _receive(self, session: Any, wanted: int) -> Jobs:
        """What the open request brings. Whoever cancels this leaves it open, for the next call to find."""
        unread = self._request is not None
        request = self._request = self._request or asyncio.ensure_future(self._fetch(session, wanted))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            limit = UNREAD_S if unread else None
            await asyncio.wait({request, closed}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
        self._request = None
        if not request.done():
            request.cancel()
            await asyncio.wait({request})
        return None if request.cancelled() else request.result()

    async def _pause(self, number: int) -> None:
        doublings = min(number, 10)  # after half an hour, 2 to their number is no float any more
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), min(MAX_PAUSE_S, EMPTY_REQUEST_S * 2**doublings))
