"""What callers send and are answered, with RunPod's names for it: the types that the OpenAPI is made of."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from local_endpoint.config import MAX_POLICY_MS, MIN_EXECUTION_TIMEOUT_MS, MIN_TTL_MS
from local_endpoint.jobs import State
from local_endpoint.webhook import check_url


def _policy_field(minimum: int, description: str) -> Any:
    """A number of milliseconds; its bounds are told here and kept where the endpoint's own are known."""
    return Field(
        default=None, description=description, json_schema_extra={"minimum": minimum, "maximum": MAX_POLICY_MS}
    )


class Policy(BaseModel):
    """How long a job may run and live."""

    executionTimeout: int | None = _policy_field(MIN_EXECUTION_TIMEOUT_MS, "milliseconds a worker may take")
    ttl: int | None = _policy_field(MIN_TTL_MS, "milliseconds it may wait and run in all")
    lowPriority: bool = Field(default=False, description="accepted; it would keep workers from being added")


class S3Config(BaseModel):
    """Where the worker shall put what it makes."""

    accessId: str
    accessSecret: str
    bucketName: str | None = None
    endpointUrl: str


class JobRequest(BaseModel):
    """What a caller posts; only `input` is needed."""

    input: Any
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


class JobCounts(BaseModel):
    """Jobs by state; `failed` counts what timed out, too."""

    completed: int
    failed: int
    inProgress: int
    inQueue: int
    retried: int


class WorkerCounts(BaseModel):
    """Workers by state; `ready` counts the idle ones once more."""

    idle: int
    initializing: int
    ready: int
    running: int
    throttled: int
    unhealthy: int


class HealthAnswer(BaseModel):
    """Jobs and workers, counted by state."""

    jobs: JobCounts
    workers: WorkerCounts


class RequestState(BaseModel):
    """One job in the list of all."""

    id: str
    status: State


class RequestsAnswer(BaseModel):
    """Every job that is kept, oldest first."""

    requests: list[RequestState]


class Problem(BaseModel):
    """Why a request was refused."""

    status: int = Field(description="the HTTP status once more")
    title: str
    detail: str
