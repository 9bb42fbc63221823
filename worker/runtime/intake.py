"""Jobs from the platform: one request for them is open at a time, and it can be closed before it brings one.

With more than one job at once the SDK keeps such a request open while jobs run, and does not run what it still brings
to a worker that is leaving. Its own timer, too, can end a request whose answer lies unread in this process, because it
was frozen meanwhile. Both lose a job; hence this stands between the SDK and its fetcher.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from runpod.serverless.modules.worker_state import JobsProgress

log = logging.getLogger("worker")

Jobs = list[dict[str, Any]] | None
Fetch = Callable[[Any, int], Coroutine[Any, Any, Jobs]]
FetchStops = Callable[[Any], Awaitable[list[str]]]

EMPTY_REQUEST_S = 0.05  # within which a request that brought nothing did not wait for a job
FREE_EMPTY_REQUESTS = 3  # of them in a row, that nothing is made of
MAX_PAUSE_S = 2.0
START_S, START_CHECK_S = 0.5, 0.02  # for a job that was handed out to be run by the SDK
MAX_ID_LENGTH = 20_000  # characters, in a URL and in a header of the same request, which may have 64 KB together
IN_A_PATH = "!$&'()*+,;=:@-._~"  # beside letters and digits
ID_HEADER = "X-Request-ID"
USED = ("input", "s3Config")  # of a job, beside its id
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
        _forget_last_id(session)
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
        return None if request.cancelled() else _admit(request.result() or ())

    async def fetch_stops(self, session: Any) -> list[str]:
        """The ids of jobs to stop, once each can be.

        The SDK stops what it runs; a job that was handed out within a tenth of a second may not run yet, and whoever
        wants it stopped says so once.
        """
        _forget_last_id(session)
        told = [job_id for job_id in map(_spell_id, await self._fetch_stops(session)) if job_id is not None]
        until = time.monotonic() + START_S
        while not self._running.keys() >= set(told) and time.monotonic() < until:
            await asyncio.sleep(START_CHECK_S)
        return told

    async def _pause(self, number: int) -> None:
        doublings = min(number, 10)  # after half an hour, 2 to their number is no float any more
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), min(MAX_PAUSE_S, EMPTY_REQUEST_S * 2**doublings))


def _admit(sent: Sequence[Any]) -> list[dict[str, Any]]:
    """The jobs among what the platform has sent, with no more of each than is used; each once, and none in hand.

    The SDK would take this process down for what is no job, or never hear of another one; and of one in hand already,
    as of one that was given up while this process was frozen, it would lose the result.
    """
    jobs: dict[str, dict[str, Any]] = {}
    for one in sent:
        job_id = _spell_id(one.get("id")) if isinstance(one, dict) and "input" in one else None
        if job_id is not None and JobsProgress().get(job_id) is None:
            jobs[job_id] = {"id": job_id, **{name: one[name] for name in USED if name in one}}
    if len(jobs) < len(sent):
        log.warning(
            "left out %d of %d that the platform sent: no job, or in hand already", len(sent) - len(jobs), len(sent)
        )
    return list(jobs.values())


def _spell_id(job_id: object) -> str | None:
    """A job's id as a URL spells it; None if it is none, or cannot be in one.

    The SDK puts it into the address that the result goes to, into a header and into its log, as it is. An id of
    letters, digits and dashes, as the platform's own are, is spelled as it is.
    """
    if isinstance(job_id, bool) or not isinstance(job_id, (str, int)):
        return None
    try:
        spelled = quote(str(job_id), safe=IN_A_PATH)
    except ValueError:  # half a letter, or a number of thousands of digits
        return None
    return None if spelled in ("", ".", "..") or len(spelled) > MAX_ID_LENGTH else spelled


def _forget_last_id(session: Any) -> None:
    """Send no more the id that the SDK leaves in the session's headers, of the last job whose result was sent.

    A host that refuses one would not be heard again: each request for jobs would carry it.
    """
    session.headers.pop(ID_HEADER, None)
