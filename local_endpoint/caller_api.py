"""The caller's side: the HTTP operations of https://api.runpod.ai/v2/ENDPOINT, with their OpenAPI.

Bodies and answers have RunPod's fields; error answers have FastAPI's `detail`, since RunPod publishes no form of them.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from local_endpoint.hold import hold
from local_endpoint.jobs import Job, State
from local_endpoint.queue import JobQueue


class Policy(BaseModel):
    """How long a job may run and live."""

    executionTimeout: int | None = Field(default=None, gt=0, description="milliseconds a worker may take")
    ttl: int | None = Field(default=None, gt=0, description="milliseconds it may wait and run in all")
    lowPriority: bool = Field(default=False, description="accepted; one desk has one priority")


class S3Config(BaseModel):
    """Where the worker shall put what it makes."""

    accessId: str
    accessSecret: str
    bucketName: str | None = None
    endpointUrl: str


class JobRequest(BaseModel):
    """What a caller posts; only `input` is needed."""

    input: Any = Field(examples=[{"prompt": "a red circle on a white background"}])
    webhook: str | None = Field(default=None, pattern="^https?://", description="receives the final answer as a POST")
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


def answer(job: Job) -> JobAnswer:
    """A job as its caller sees it."""
    return JobAnswer(
        id=job.id,
        status=job.state,
        delayTime=job.delay_ms,
        executionTime=job.execution_ms,
        workerId=job.worker_id,
        output=job.output,
        error=job.error,
    )


_bearer = HTTPBearer(auto_error=False, description="the endpoint's API key")


def _queue(
    endpoint: str, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> JobQueue:
    """The queue of the endpoint in the path, for a caller who has its key."""
    queue: JobQueue = request.app.state.queue
    if given is None or given.credentials != queue.config.api_key:
        raise HTTPException(401, "wrong or missing API key; send 'Authorization: Bearer KEY'")
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
    responses={401: {"description": "no key"}, 404: {"description": "no such endpoint or job"}},
)


_NO_JSON: dict[int | str, dict[str, Any]] = {400: {"description": "the body is not JSON"}}


@router.post("/run", response_model_exclude_none=True, responses=_NO_JSON)
async def run(body: JobRequest, queue: Queue) -> JobAnswer:
    """Queues a job and answers at once."""
    return answer(_submit(body, queue, sync=False))


@router.post("/runsync", response_model_exclude_none=True, responses=_NO_JSON)
async def runsync(
    body: JobRequest, queue: Queue, request: Request, wait: Annotated[int, Query(ge=1000, le=300_000)] = 90_000
) -> JobAnswer:
    """Queues a job and waits up to `wait` milliseconds for its end; then answers with its state, whatever it is."""
    job = _submit(body, queue, sync=True)
    await hold(request, wait / 1000, lambda: job.final, queue.events)
    return answer(job)


@router.get("/status/{job_id}", response_model_exclude_none=True)
async def status(job: KnownJob) -> JobAnswer:
    """State, times and output of a job; while it runs, `output` is the last progress."""
    return answer(job)


@router.post("/status/{job_id}", response_model_exclude_none=True, include_in_schema=False)
async def status_by_post(job: KnownJob) -> JobAnswer:
    """The same, for clients that post."""
    return answer(job)


@router.get("/stream/{job_id}")
async def stream(job: KnownJob, queue: Queue, request: Request) -> StreamAnswer:
    """The chunks a generator has sent since the last call; waits up to a second for one."""
    await hold(request, 1.0, lambda: bool(job.stream) or job.final, queue.events)
    chunks, job.stream = job.stream, []
    return StreamAnswer(status=job.state, stream=[{"output": chunk} for chunk in chunks])


@router.post("/cancel/{job_id}", response_model_exclude_none=True)
async def cancel(job: KnownJob, queue: Queue) -> JobAnswer:
    """Cancels a waiting job, stops a running one, leaves a finished one as it is."""
    queue.cancel(job)
    return answer(job)


@router.post(
    "/retry/{job_id}", response_model_exclude_none=True, responses={409: {"description": "nothing to try again"}}
)
async def retry(job: KnownJob, queue: Queue) -> JobAnswer:
    """Queues a failed or timed out job again under its old id."""
    if not queue.retry(job):
        raise HTTPException(409, f"only FAILED and TIMED_OUT jobs can be tried again; this one is {job.state}")
    return answer(job)


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
