"""The caller's side: the HTTP operations of https://api.runpod.ai/v2/ENDPOINT, with their OpenAPI.

Bodies, answers and refusals have RunPod's fields.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from local_endpoint import wire
from local_endpoint.caller_types import (
    HealthAnswer,
    JobAnswer,
    JobCounts,
    JobRequest,
    Policy,
    Problem,
    PurgeAnswer,
    RequestsAnswer,
    RequestState,
    StreamAnswer,
    WorkerCounts,
)
from local_endpoint.config import MAX_POLICY_MS, EndpointConfig
from local_endpoint.doors import shows_callers_key
from local_endpoint.hold import hold
from local_endpoint.jobs import Job
from local_endpoint.queue import JobQueue
from local_endpoint.wire import JSONAnswer


class BoundedRequest(Request):
    """A request of which no more is read than may come, and as JSON only what is."""

    async def body(self) -> bytes:
        """The body. Raises HTTPException 400 when it is too long, unread where its headers say so."""
        if not hasattr(self, "_body"):
            config = self.app.state.queue.config
            short = _operation(self) == "run"
            limit = config.request_limit_bytes if short else config.sync_request_limit_bytes
            try:
                self._body = await wire.read_body(self, limit)
            except wire.TooLongError:
                raise HTTPException(400, f"bad request: body: exceeded max body size of {limit / 2**20:g}MiB") from None
            except ClientDisconnect:
                raise HTTPException(400, "bad request: body: its sender has gone before its end") from None
        return self._body

    async def json(self) -> Any:
        """The body's value. Raises HTTPException 400 when it is not JSON."""
        try:
            return wire.read_json(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"bad request: body: not JSON: {error}") from None


class CallersRoute(APIRoute):
    """A route for callers with a key, called no more often than it may be; before that, nothing of a body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, behind the check of the key and the count of calls."""
        handle = super().get_route_handler()

        async def handle_if_admitted(request: Request) -> Response:
            if not shows_callers_key(request, request.app.state.queue.config):
                raise HTTPException(401, "wrong or missing API key; send 'Authorization: Bearer KEY'")
            with request.app.state.limiter.admit(_operation(request)):
                return await handle(BoundedRequest(request.scope, request.receive))

        return handle_if_admitted


def _operation(request: Request) -> str:
    """What stands after the endpoint's id: run, status, openai."""
    return str(request.url.path).split("/")[3]


def _queue(endpoint: str, request: Request) -> JobQueue:
    """The queue of the endpoint in the path."""
    queue: JobQueue = request.app.state.queue
    if endpoint != queue.config.endpoint_id:
        raise HTTPException(404, f"no endpoint {endpoint!r} here, only {queue.config.endpoint_id!r}")
    return queue


Queue = Annotated[JobQueue, Depends(_queue)]


def _job(job_id: str, queue: Queue) -> Job:
    if job_id not in queue.jobs:
        raise HTTPException(404, f"job not found: {job_id!r} never was, or is no longer kept")
    return queue.jobs[job_id]


KnownJob = Annotated[Job, Depends(_job)]

router = APIRouter(
    prefix="/v2/{endpoint}",
    tags=["caller"],
    route_class=CallersRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False, description="the endpoint's API key"))],
    responses={
        400: {"model": Problem, "description": "the request is not as it must be"},
        401: {"model": Problem, "description": "no key"},
        404: {"model": Problem, "description": "no such endpoint or job"},
        429: {"model": Problem, "description": "called too often"},
    },
)


@router.post("/run", response_model=JobAnswer)
async def run(body: JobRequest, queue: Queue) -> Response:
    """Queues a job and answers at once."""
    return JSONAnswer(_submit(body, queue, sync=False).answer())


@router.post("/runsync", response_model=JobAnswer)
async def runsync(
    body: JobRequest, queue: Queue, request: Request, wait: Annotated[int, Query(ge=1000, le=300_000)] = 90_000
) -> Response:
    """Queues a job and waits up to `wait` milliseconds for its end; then answers with its state, whatever it is."""
    job = _submit(body, queue, sync=True)
    await hold(request, wait / 1000, lambda: job.final, queue.events)
    return JSONAnswer(job.answer())


@router.get("/status/{job_id:rest}", response_model=JobAnswer)
async def status(job: KnownJob, ttl: Annotated[int | None, Query(ge=1, le=MAX_POLICY_MS)] = None) -> Response:
    """State, times and output of a job; while it runs, `output` is the last progress.

    `ttl` changes its time to live: milliseconds, counted from when it was submitted.
    """
    job.ttl_ms = ttl or job.ttl_ms
    return JSONAnswer(job.answer())


@router.post("/status/{job_id:rest}", response_model=JobAnswer, include_in_schema=False)
async def status_by_post(job: KnownJob) -> Response:
    """The same, for clients that post."""
    return JSONAnswer(job.answer())


@router.get("/stream/{job_id:rest}", response_model=StreamAnswer)
async def stream(job: KnownJob, queue: Queue, request: Request) -> Response:
    """The chunks a generator has sent since the last call; waits up to a second for one."""
    await hold(request, queue.config.stream_hold_s, lambda: bool(job.stream) or job.final, queue.events)
    return JSONAnswer({"status": job.state, "stream": [{"output": chunk} for chunk in queue.read_stream(job)]})


@router.post("/cancel/{job_id:rest}", response_model=JobAnswer)
async def cancel(job: KnownJob, queue: Queue) -> Response:
    """Cancels a waiting job, stops a running one, leaves a finished one as it is."""
    queue.cancel(job)
    return JSONAnswer(job.answer())


@router.post("/retry/{job_id:rest}", response_model=JobAnswer)
async def retry(job: KnownJob, queue: Queue) -> Response:
    """Queues a failed or timed out job again under its old id."""
    if not queue.retry(job):
        raise HTTPException(400, f"bad request: only FAILED and TIMED_OUT jobs can be retried; this is {job.state}")
    return JSONAnswer(job.answer())


@router.post("/purge-queue")
async def purge_queue(queue: Queue) -> PurgeAnswer:
    """Cancels everything that waits; running jobs go on."""
    return PurgeAnswer(removed=queue.purge())


@router.get("/health")
async def health(queue: Queue) -> HealthAnswer:
    """Counts of jobs and workers."""
    return HealthAnswer(jobs=JobCounts(**queue.job_counts()), workers=WorkerCounts(**queue.worker_counts()))


@router.get("/requests")
async def requests(queue: Queue) -> RequestsAnswer:
    """The jobs that are kept, and their states. RunPod publishes no more of this operation than that it exists."""
    return RequestsAnswer(requests=[RequestState(id=job.id, status=job.state) for job in queue.jobs.values()])


def _submit(body: JobRequest, queue: JobQueue, sync: bool) -> Job:
    _check_policy(body.policy, queue.config)
    job = Job(
        input=body.input,
        sync=sync,
        execution_timeout_ms=body.policy.executionTimeout or queue.config.execution_timeout_ms,
        ttl_ms=body.policy.ttl or queue.config.ttl_ms,
        webhook=body.webhook,
        s3_config=body.s3Config.model_dump() if body.s3Config else None,
    )
    queue.submit(job)
    return job


def _check_policy(policy: Policy, config: EndpointConfig) -> None:
    """Raises HTTPException 400 when a time is out of RunPod's bounds."""
    for name, given, minimum in (
        ("executionTimeout", policy.executionTimeout, config.min_execution_timeout_ms),
        ("ttl", policy.ttl, config.min_ttl_ms),
    ):
        if given is not None and not minimum <= given <= MAX_POLICY_MS:
            allowed = f"{minimum} to {MAX_POLICY_MS} milliseconds"
            raise HTTPException(400, f"bad request: policy.{name}: {str(given)[:20]} is not allowed; {allowed}")
