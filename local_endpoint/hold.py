"""The long poll: keep a request open until there is something to say, the time is up, or nobody listens any more."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from local_endpoint.events import EventLog

T = TypeVar("T")


async def hold(
    request: Request,
    seconds: float,
    ready: Callable[[], T],
    events: EventLog,
    give_back: Callable[[T], None] = lambda found: None,
) -> T | None:
    """Calls `ready` now and after every event until it returns something true, and returns that.

    None when the time is up or the client has gone. A client that goes while `ready` succeeds gets nothing: what was
    found is handed to `give_back`. What is already on the wire when a client goes cannot be called back.
    """
    wake = asyncio.Event()
    gone = asyncio.create_task(_client_gone(request))
    gone.add_done_callback(lambda _: wake.set())
    events.listeners.add(wake)
    deadline = time.monotonic() + seconds
    try:
        await _notice_disconnect()
        while not gone.done():
            wake.clear()
            if found := ready():
                await _notice_disconnect()
                if not gone.done():
                    return found
                give_back(found)
                break
            if not await _set_before(wake, deadline):
                break
    finally:
        events.listeners.discard(wake)
        gone.cancel()
    return None


async def _set_before(wake: asyncio.Event, deadline: float) -> bool:
    try:
        await asyncio.wait_for(wake.wait(), deadline - time.monotonic())
    except TimeoutError:
        return False
    return True


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _notice_disconnect() -> None:
    """Lets the loop read its sockets, and the tasks that wait for them run."""
    for _ in range(4):
        await asyncio.sleep(0)
