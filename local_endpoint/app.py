"""The emulated endpoint as one object: queue, record and HTTP server, served from a thread of this process.

It stands where RunPod stands, between a caller and real worker processes. It does not scale workers, does not
start them (worker_process.py does), and keeps everything in memory.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from local_endpoint import caller_api, connections, docs_page, openai_api, page, webhook, worker_api
from local_endpoint.config import EndpointConfig
from local_endpoint.doors import NameCheck
from local_endpoint.events import EventLog
from local_endpoint.faults import Fault, FaultInjector
from local_endpoint.jobs import Job
from local_endpoint.limits import RateLimiter
from local_endpoint.openapi import DescribedApp
from local_endpoint.problems import answer_with_problems
from local_endpoint.queue import JobQueue

SWEEP_S = 0.1
MAX_WEBHOOKS_AT_ONCE = 8


class LocalEndpoint:
    """An endpoint on your desk. Use it as a context manager, or call `start` and `stop`.

    `events` is the record of everything that happened; `faults` is a list to put faults in and take them out of.
    """

    def __init__(self, config: EndpointConfig | None = None) -> None:
        self.config = config or EndpointConfig()
        self.events = EventLog()
        self.queue = JobQueue(self.config, self.events)
        self.faults: list[Fault] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._webhook_turns = asyncio.Semaphore(MAX_WEBHOOKS_AT_ONCE)
        self._webhooks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """Scheme, host and port."""
        host = self.config.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def url(self) -> str:
        """What stands for https://api.runpod.ai/v2/ENDPOINT."""
        return f"{self.base_url}/v2/{self.config.endpoint_id}"

    def start(self) -> Self:
        """Listens and serves. Raises OSError when the port is taken."""
        family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
        listener = socket.create_server((self.config.host, self.config.port), family=family)
        self.port: int = listener.getsockname()[1]
        settings = uvicorn.Config(
            self.make_app(),
            log_level="error",
            access_log=False,
            lifespan="on",
            http=connections.bound(self.config),
            ws="none",
            headers=page.HEADERS,
            timeout_keep_alive=self.config.keep_alive_s,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="local endpoint", daemon=True)
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("the local endpoint did not start within 30 s")
        return self

    def stop(self) -> None:
        """Stops serving; open long polls are broken off after a second."""
        if self._thread:
            self._server.should_exit = True
            self._thread.join()

    def worker_started(self, worker_id: str) -> None:
        """Says, from any thread, that a worker's process has started; it counts as initializing until it asks."""
        self._call(self.queue.seen, worker_id)

    def worker_gone(self, worker_id: str, reason: str) -> None:
        """Says, from any thread, that a worker's process has ended; its jobs go back into the queue."""
        self._call(self.queue.worker_gone, worker_id, reason)

    def _call(self, function: Callable[..., object], *arguments: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to care
            if self._loop:
                self._loop.call_soon_threadsafe(function, *arguments)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def make_app(self) -> FastAPI:
        """The ASGI application that is served."""
        app = DescribedApp(
            title="RunPod Serverless on your desk",
            description="The caller's side of an emulated RunPod Serverless endpoint.",
            version="2",
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
        )
        app.endpoint_id = self.config.endpoint_id
        app.state.queue = self.queue
        app.state.limiter = RateLimiter(self.config.rate_limits)
        app.include_router(caller_api.router)
        app.include_router(worker_api.router)
        app.include_router(openai_api.router)
        app.include_router(docs_page.router)
        app.include_router(page.router)
        answer_with_problems(app)
        app.add_middleware(NameCheck, config=self.config)
        app.add_middleware(FaultInjector, faults=self.faults, events=self.events)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self.queue.on_end = self._call_webhook
        sweeper = asyncio.create_task(self._sweep())
        self._ready.set()
        yield
        for task in (sweeper, *self._webhooks):
            task.cancel()

    async def _sweep(self) -> None:
        while True:
            self.queue.sweep()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, connections.BoundedConnection):
                    connection.close_if_overdue()
            await asyncio.sleep(SWEEP_S)

    def _call_webhook(self, job: Job) -> None:
        if job.webhook:
            task = asyncio.create_task(self._deliver(job))
            self._webhooks.add(task)
            task.add_done_callback(self._webhooks.discard)

    async def _deliver(self, job: Job) -> None:
        async with self._webhook_turns:
            await webhook.deliver(job, self.config, self.events)
