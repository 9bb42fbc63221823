"""Jobs from the platform: one request for them is open at a time, and it can be closed before it brings one.

With more than one job at once the SDK keeps such a request open while jobs run, and does not run what it still brings
to a worker that is leaving. Its own timer, too, can end a request whose answer lies unread in this process, because it
was frozen meanwhile. Both lose a job; hence this stands between the SDK and its fetcher.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from runpod.serverless.modules.worker_state import JobsProgress

log = logging.getLogger("worker")

Jobs = list[dict[str, Any]] | None
Fetch = Callable[[Any, int], Coroutine[Any, Any, Jobs]]
FetchStops = Callable[[Any], Awaitable[list[str]]]

EMPTY_REQUEST_S = 0.05  # within which a request that brought nothing did not wait for a job
FREE_EMPTY_REQUESTS = 3  # of them in a row, that nothing is made of
MAX_PAUSE_S = 2.0
START_S, START_CHECK_S = 0.5, 0.02  # for a job that was handed out to be run by the SDK
UNREAD_S = 5.0  # for a request that the SDK has given up to bring what may have come for it


class Intake:
    """Fetches jobs as the SDK does, until it is closed."""

    def __init__(self, fetch: Fetch, fetch_stops: FetchStops, running: Mapping[str, Any]) -> None:
        """It is open.

        Args:
            fetch: the SDK's own: a session and how many jobs at most -> jobs, after as long as the platform likes.
            fetch_stops: the same for the ids of jobs that nobody wants any more.
            running: the jobs that the SDK runs, by their ids.
        """
        self._fetch = fetch
        self._fetch_stops = fetch_stops
        self._running = running
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
        return (
            None
            if request.cancelled()
            else list({job["id"]: job for job in request.result() or () if _is_new(job)}.values())
        )

    async def fetch_stops(self, session: Any) -> list[str]:
        """The ids of jobs to stop, once each can be.

        The SDK stops what it runs; a job that was handed out within a tenth of a second may not run yet, and whoever
        wants it stopped says so once.
        """
        told = await self._fetch_stops(session)
        until = time.monotonic() + START_S
        while not self._running.keys() >= set(told) and time.monotonic() < until:
            await asyncio.sleep(START_CHECK_S)
        return told

    async def _pause(self, number: int) -> None:
        doublings = min(number, 10)  # after half an hour, 2 to their number is no float any more
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), min(MAX_PAUSE_S, EMPTY_REQUEST_S * 2**doublings))


def _is_new(job: Any) -> bool:
    """Whether it is a job, and not in hand already, as one is that was given up while this process was frozen.

    The SDK would take this process down for one, and lose the other's result.
    """
    job_id = job.get("id") if isinstance(job, dict) else None
    if not isinstance(job_id, str) or not job_id or "input" not in job:
        log.warning("the platform sent a %s that is no job", type(job).__name__)
        return False
    if JobsProgress().get(job_id) is not None:
        log.warning("job %s is in hand already", job_id)
        return False
    return True
