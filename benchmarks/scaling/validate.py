"""The same jobs through RunPod's SDK with a real worker, and through the simulation.

`python -m benchmarks.scaling.validate`: jobs sleep instead of drawing, and come in by a Poisson process. Takes minutes.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.scaling.findings import VALIDATION, Comparison, Validation, write_findings
from benchmarks.scaling.load import Load, arrivals
from benchmarks.scaling.policies import Policy, QueueDelay
from benchmarks.scaling.service import Sdk, Service
from benchmarks.scaling.simulate import run
from benchmarks.scaling.worker import Job
from benchmarks.waiting_jobs import PACED, Queue

DRAW_S = 0.3
CASES = {1: 0.7, 4: 1.5}  # JOBS_AT_ONCE -> jobs a second
SECONDS = 120.0
LONE_JOBS, APART_S = 7, 2.5
SEED = 19


def main() -> None:
    """Measure, simulate, and keep both."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    lone: list[float] = []
    seen = {at_once: _measure(at_once, rate, lone) for at_once, rate in CASES.items()}
    beside = statistics.median(lone) - DRAW_S - Sdk().start_s / 2
    compared = tuple(
        Comparison(at_once, CASES[at_once], len(submitted), delays, replay(submitted, at_once, DRAW_S + beside))
        for at_once, (submitted, delays) in seen.items()
    )
    date = datetime.now(UTC).date().isoformat()
    write_findings(Validation(date, DRAW_S, round(beside, 4), compared), VALIDATION)


def replay(submitted: Sequence[float], at_once: int, job_s: float) -> list[float]:
    """The delays of jobs of so many seconds that come in at these times, by the simulation."""
    policy = Policy(QueueDelay(), 1, active=1, at_once=at_once)
    ended = run([Job(at) for at in submitted], policy, Service((job_s,))).ended
    return [round(job.delay, 4) for job in ended]


def _measure(at_once: int, rate: float, lone: list[float]) -> tuple[list[float], list[float]]:
    """When jobs came in, and their delays; delays of jobs that come alone are added to the others."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"JOBS_AT_ONCE": str(at_once)}
        with Queue.open(PACED, env, Path(folder) / "worker.log") as queue:
            _submit(queue, [0.0])  # warms up
            lone += _submit(queue, [APART_S * number for number in range(1, LONE_JOBS + 1)])[1]
            return _submit(queue, list(arrivals(Load("", rate, SECONDS), SEED)))


def _submit(queue: Queue, times: Sequence[float]) -> tuple[list[float], list[float]]:
    """When each came in, from the first time on, and its delay."""
    began, sent = time.monotonic(), []
    for at in times:
        time.sleep(max(0.0, began + at - time.monotonic()))
        sent.append(queue.submit({"prompt": f"draw {DRAW_S}", "width": 64, "height": 64}))
    ended = [queue.wait(job_id) for job_id in sent]
    queued = [queue.endpoint.events.wait("queued", job_id=job_id).at for job_id in sent]
    first = queued[0] - times[0]
    return [round(at - first, 4) for at in queued], [round(end - at, 4) for at, end in zip(queued, ended, strict=True)]


if __name__ == "__main__":
    main()
