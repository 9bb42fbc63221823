"""Trouble on the way between worker and endpoint, switched on by a test. It knows requests, never jobs."""

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from local_endpoint.events import EventLog


@dataclass
class Fault:
    """What happens to the next worker requests of one kind: wait `delay_s`, then drop, answer `status`, or serve.

    `on` is the request's name (job-take, job-take-batch, job-stop, ping, job-done, job-stream). `times` counts down;
    None means until it is removed. A hang is a long `delay_s`.
    """

    on: str = "job-take"
    delay_s: float = 0.0
    drop: bool = False
    status: int | None = None
    times: int | None = None


class FaultInjector:
    """ASGI middleware that plays the first fault matching a request before, or instead of, serving it."""

    def __init__(self, app: ASGIApp, faults: list[Fault], events: EventLog) -> None:
        self.app = app
        self.faults = faults
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._next_fault(scope["path"]) if scope["type"] == "http" else None
        if fault is None:
            return await self.app(scope, receive, send)
        self.events.record("fault", on=fault.on)
        await asyncio.sleep(fault.delay_s)
        if fault.drop:
            await _drop(receive)
        elif fault.status is not None:
            await send({"type": "http.response.start", "status": fault.status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
        else:
            await self.app(scope, receive, send)

    def _next_fault(self, path: str) -> Fault | None:
        names = path.split("/")
        for fault in self.faults:
            if fault.on in names and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


async def _drop(receive: Receive) -> None:
    # ASGI has no word for "reset the connection": uvicorn's receive is a method of the object that holds the socket.
    receive.__self__.transport.abort()  # type: ignore[attr-defined]
    while (await receive())["type"] != "http.disconnect":
        pass
