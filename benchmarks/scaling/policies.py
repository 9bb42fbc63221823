"""What an endpoint's owner chooses: RunPod's two scaling rules, how many workers, and how they come and go."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class QueueDelay:
    """Workers are added when requests wait longer than so many seconds.

    The first request adds one where there is none; each later one adds one once it has waited for so long.
    """

    seconds: float = 4.0


@dataclass(frozen=True)
class RequestCount:
    """There are as many workers as `ceil((requests in queue + requests in progress) / value)`."""

    value: int = 4

    def count_wanted(self, queued: int, in_progress: int) -> int:
        """Workers that the rule asks for."""
        return math.ceil((queued + in_progress) / self.value)


@dataclass(frozen=True)
class Policy:
    """One endpoint's settings.

    Attributes:
        rule: RunPod's auto-scaling type.
        max_workers: active ones included.
        active: workers that are always there.
        idle_s: the idle timeout: for how long a worker without a job waits for one before it is stopped.
        cold_start_s: from when a worker is added until it asks for jobs.
        at_once: JOBS_AT_ONCE.
        newest_first: whether a job goes to the worker that asked last, rather than to the one that asked first. No
            setting of RunPod's, but what is not known of it.
    """

    rule: QueueDelay | RequestCount
    max_workers: int
    active: int = 0
    idle_s: float = 5.0
    cold_start_s: float = 30.0
    at_once: int = 1
    newest_first: bool = False
