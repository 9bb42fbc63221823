"""The caller's side: the HTTP operations of https://api.runpod.ai/v2/ENDPOINT, with their OpenAPI.

Bodies and answers have RunPod's fields; error answers have FastAPI's `detail`, since RunPod publishes no form of them.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, BaseModel, Field

from local_endpoint import wire
from local_endpoint.doors import shows_callers_key
from local_endpoint.hold import hold
from local_endpoint.jobs import Job, State
from local_endpoint.queue import JobQueue
from local_endpoint.webhook import check_url
from local_endpoint.wire import JSONAnswer


class Policy(BaseModel):
    """How long a job may run and live."""

    executionTimeout: int | None = Field(default=None, gt=0, description="milliseconds a worker may take")
    ttl: int | None = Field(default=None, gt=0, description="milliseconds it may wait and run in all")
    lowPriority: bool = Field(default=False, description="accepted; it would keep workers from being added")


class S3Config(BaseModel):
    """Where the worker shall put what it makes."""

    accessId: str
    accessSecret: str
    bucketName: str | None = None
    endpointUrl: str


class JobRequest(BaseModel):
    """What a caller posts; only `input` is needed."""

    input: Any = Field(examples=[{"prompt": "a red circle on a white background"}])
    webhook: Annotated[str, Field(pattern="^https?://"), AfterValidator(check_url)] | None = Field(
        default=None, description="receives the final answer as a POST"
    )
    policy: Policy = Policy()
    s3Config: S3Config | None = None


class JobAnswer(BaseModel):
    """What a caller learns about a job; times in milliseconds."""

    id: str
    status: State
    delayTime: int | None = None
    executionTime: int | None = None
    workerId: str | None = None
    output: Any = None
    error: str | None = None


class StreamAnswer(BaseModel):
    """The chunks that nobody has read yet."""

    status: State
    stream: list[dict[str, Any]]


class PurgeAnswer(BaseModel):
    """How many waiting jobs were cancelled."""

    removed: int
    status: Literal["completed"] = "completed"


class HealthAnswer(BaseModel):
    """Jobs and workers, counted by state."""

    jobs: dict[str, int]
    workers: dict[str, int]


class BoundedRequest(Request):
    """A request of which no more is read than may come, and as JSON only what is."""

    async def body(self) -> bytes:
        """The body. Raises HTTPException 413 when it is too long, unread where its headers say so."""
        if not hasattr(self, "_body"):
            config = self.app.state.queue.config
            sync = self.url.path.endswith("/runsync")
            limit = config.sync_request_limit_bytes if sync else config.request_limit_bytes
            try:
                self._body = await wire.read_body(self, limit)
            except wire.TooLongError as error:
                raise HTTPException(413, str(error)) from None
        return self._body

    async def json(self) -> Any:
        """The body's value. Raises HTTPException 400 when it is not JSON."""
        try:
            return wire.read_json(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from None


class CallersRoute(APIRoute):
    """A route for callers with a key; without it, nothing of a body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, behind the check of the key."""
        handle = super().get_route_handler()

        async def handle_with_key(request: Request) -> Response:
            if not shows_callers_key(request, request.app.state.queue.config):
                raise HTTPException(401, "wrong or missing API key; send 'Authorization: Bearer KEY'")
            return await handle(BoundedRequest(request.scope, request.receive))

        return handle_with_key


async def explain_invalid(request: Request, error: Exception) -> Response:
    """The answer 422: what is wrong and where, without what came, which may be anything."""
    assert isinstance(error, RequestValidationError)
    problems = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in error.errors()]
    return JSONAnswer({"detail": problems}, 422)


def _queue(endpoint: str, request: Request) -> JobQueue:
    """The queue of the endpoint in the path."""
    queue: JobQueue = request.app.state.queue
    if endpoint != queue.config.endpoint_id:
        raise HTTPException(404, f"no endpoint {endpoint!r} here, only {queue.config.endpoint_id!r}")
    return queue


Queue = Annotated[JobQueue, Depends(_queue)]


def _job(job_id: str, queue: Queue) -> Job:
    if job_id not in queue.jobs:
        raise HTTPException(404, f"no job {job_id!r}; it never was, or its result is no longer kept")
    return queue.jobs[job_id]


KnownJob = Annotated[Job, Depends(_job)]

router = APIRouter(
    prefix="/v2/{endpoint}",
    tags=["caller"],
    route_class=CallersRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False, description="the endpoint's API key"))],
    responses={401: {"description": "no key"}, 404: {"description": "no such endpoint or job"}},
)


_BAD_BODY: dict[int | str, dict[str, Any]] = {
    400: {"description": "the body is not JSON"},
    413: {"description": "the body is too long"},
}


@router.post("/run", response_model=JobAnswer, responses=_BAD_BODY)
async def run(body: JobRequest, queue: Queue) -> Response:
    """Queues a job and answers at once."""
    return JSONAnswer(_submit(body, queue, sync=False).answer())


@router.post("/runsync", response_model=JobAnswer, responses=_BAD_BODY)
async def runsync(
    body: JobRequest, queue: Queue, request: Request, wait: Annotated[int, Query(ge=1000, le=300_000)] = 90_000
) -> Response:
    """Queues a job and waits up to `wait` milliseconds for its end; then answers with its state, whatever it is."""
    job = _submit(body, queue, sync=True)
    await hold(request, wait / 1000, lambda: job.final, queue.events)
    return JSONAnswer(job.answer())


@router.get("/status/{job_id}", response_model=JobAnswer)
async def status(job: KnownJob) -> Response:
    """State, times and output of a job; while it runs, `output` is the last progress."""
    return JSONAnswer(job.answer())


@router.post("/status/{job_id}", response_model=JobAnswer, include_in_schema=False)
async def status_by_post(job: KnownJob) -> Response:
    """The same, for clients that post."""
    return JSONAnswer(job.answer())


@router.get("/stream/{job_id}", response_model=StreamAnswer)
async def stream(job: KnownJob, queue: Queue, request: Request) -> Response:
    """The chunks a generator has sent since the last call; waits up to a second for one."""
    await hold(request, queue.config.stream_hold_s, lambda: bool(job.stream) or job.final, queue.events)
    return JSONAnswer({"status": job.state, "stream": [{"output": chunk} for chunk in queue.read_stream(job)]})


@router.post("/cancel/{job_id}", response_model=JobAnswer)
async def cancel(job: KnownJob, queue: Queue) -> Response:
    """Cancels a waiting job, stops a running one, leaves a finished one as it is."""
    queue.cancel(job)
    return JSONAnswer(job.answer())


@router.post("/retry/{job_id}", response_model=JobAnswer, responses={409: {"description": "nothing to try again"}})
async def retry(job: KnownJob, queue: Queue) -> Response:
    """Queues a failed or timed out job again under its old id."""
    if not queue.retry(job):
        raise HTTPException(409, f"only FAILED and TIMED_OUT jobs can be tried again; this one is {job.state}")
    return JSONAnswer(job.answer())


@router.post("/purge-queue")
async def purge_queue(queue: Queue) -> PurgeAnswer:
    """Cancels everything that waits; running jobs go on."""
    return PurgeAnswer(removed=queue.purge())


@router.get("/health")
async def health(queue: Queue) -> HealthAnswer:
    """Counts of jobs and workers."""
    return HealthAnswer(jobs=queue.job_counts(), workers=queue.worker_counts())


def _submit(body: JobRequest, queue: JobQueue, sync: bool) -> Job:
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
