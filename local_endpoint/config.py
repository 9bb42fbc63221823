"""The numbers an emulated endpoint runs by. The defaults are the platform's own where it publishes them; tests
shorten the waits and change nothing else."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

MIN_EXECUTION_TIMEOUT_MS = 5_000
MIN_TTL_MS = 10_000
MAX_POLICY_MS = 7 * 24 * 3_600_000
RATE_WINDOW_S = 10.0


@dataclass(frozen=True)
class RateLimit:
    """How many requests an operation takes in any ten seconds, and how many at once; None: any number."""

    requests: int
    concurrent: int | None = None


RATE_LIMITS: Mapping[str, RateLimit] = {
    "runsync": RateLimit(2000, 400),
    "run": RateLimit(1000, 200),
    "status": RateLimit(2000, 400),
    "stream": RateLimit(2000, 400),
    "cancel": RateLimit(100, 20),
    "purge-queue": RateLimit(2),
    "openai": RateLimit(2000, 400),
    "requests": RateLimit(10, 2),
}


@dataclass(frozen=True)
class EndpointConfig:
    """One endpoint: where it listens, who may call, how long it waits and how much it accepts."""

    endpoint_id: str = "local"
    api_key: str = field(default="local", repr=False)  # of the callers
    worker_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)  # of the workers
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port
    allowed_hosts: tuple[str, ...] = ()  # names beside loopback's and `host` by which it may be called
    allowed_origins: tuple[str, ...] = ()  # pages from elsewhere that may call it, e.g. http://localhost:3000
    webhook_hosts: tuple[str, ...] = ()  # at addresses neither public nor loopback, which webhooks may name
    hold_s: float = 90.0  # how long job-take and job-stop stay open when there is nothing to say
    stream_hold_s: float = 1.0  # likewise /stream
    # The SDK reuses a connection up to 15 s after its last use. While a synchronous handler runs it cannot see that
    # the server has closed it, and a result posted on a closed connection is lost; so this must be longer.
    keep_alive_s: int = 75
    worker_lost_s: float = 30.0  # silence after which a worker's jobs go back into the queue
    max_connections: int = 500  # one more closes the one that has been idle for longest
    max_head_s: float = 20.0  # for a request's line and headers
    max_body_s: float = 60.0  # for its body
    max_unread_s: float = 60.0  # in which a client reads nothing of its answer
    request_limit_bytes: int = 10 * 2**20  # /run; "10 MB" in the documents, "10MiB" in what RunPod answers
    sync_request_limit_bytes: int = 20 * 2**20  # /runsync
    result_limit_bytes: int = 10_000_000  # /run
    sync_result_limit_bytes: int = 20_000_000  # /runsync
    execution_timeout_ms: int = 600_000
    ttl_ms: int = 86_400_000
    min_execution_timeout_ms: int = MIN_EXECUTION_TIMEOUT_MS  # of a job's policy
    min_ttl_ms: int = MIN_TTL_MS  # likewise
    rate_limits: Mapping[str, RateLimit] = field(default_factory=lambda: RATE_LIMITS)  # {}: none
    keep_result_s: float = 1800.0  # /run
    keep_sync_result_s: float = 60.0  # /runsync
    webhook_retry_s: float = 10.0
