"""What a job and a worker are to the endpoint: plain records, without behaviour that needs a queue or HTTP."""

import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from local_endpoint.wire import write_json


class State(StrEnum):
    """RunPod's six job states."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


FINAL_STATES = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT})


@dataclass(eq=False)
class Job:
    """One job; times are in seconds of the monotonic clock."""

    input: Any
    sync: bool
    execution_timeout_ms: int
    ttl_ms: int
    webhook: str | None = None
    s3_config: dict[str, Any] | None = None
    id: str = ""
    state: State = State.IN_QUEUE
    worker_id: str | None = None
    output: Any = None  # the last progress, then the result
    error: str | None = None
    stream: list[Any] = field(default_factory=list)  # chunks that no caller has read yet
    unread_bytes: int = 0  # of these chunks
    retries: int = 0
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    payload: bytes = b""  # what a worker receives

    def __post_init__(self) -> None:
        self.id = self.id or f"{'sync-' if self.sync else ''}{uuid.uuid4()}"
        body = {"id": self.id, "input": self.input}
        if self.webhook is not None:
            body["webhook"] = self.webhook
        if self.s3_config is not None:
            body["s3Config"] = self.s3_config
        self.payload = write_json(body)

    @property
    def final(self) -> bool:
        """Whether nothing more can happen to it, a retry aside."""
        return self.state in FINAL_STATES

    @property
    def delay_ms(self) -> int | None:
        """Time spent in the queue."""
        return None if self.started is None else round((self.started - self.created) * 1000)

    @property
    def execution_ms(self) -> int | None:
        """Time spent with the worker that ended it."""
        if self.started is None or self.finished is None:
            return None
        return round((self.finished - self.started) * 1000)

    def answer(self) -> dict[str, Any]:
        """What its caller learns: the fields of JobAnswer that there is something to say of."""
        fields = {
            "id": self.id,
            "status": self.state,
            "delayTime": self.delay_ms,
            "executionTime": self.execution_ms,
            "workerId": self.worker_id,
            "output": self.output,
            "error": self.error,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def has_expired(self, now: float) -> bool:
        """Whether its time to live is over before it is."""
        return not self.final and (now - self.created) * 1000 >= self.ttl_ms

    def has_run_too_long(self, now: float) -> bool:
        """Whether its worker has had all the time that it may take."""
        return not self.final and self.started is not None and (now - self.started) * 1000 >= self.execution_timeout_ms


@dataclass
class Worker:
    """One worker as the endpoint sees it: only through its requests."""

    id: str
    last_seen: float
    has_asked: bool = False  # for a job
    unhealthy: bool = False
    stops: list[str] = field(default_factory=list)  # jobs it has to stop and has not been told of yet
