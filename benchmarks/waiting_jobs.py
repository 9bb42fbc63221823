"""The scenes with jobs that wait: real worker processes on the emulated platform, each with a queue of its own."""

import json
import logging
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.results import Case
from benchmarks.scenes import Scene
from local_endpoint import EndpointConfig, Fault, LocalEndpoint, LocalWorker
from local_endpoint.events import FINAL_KINDS
from tests.helpers.python_path import python_path

ROOT = Path(__file__).parent.parent
PACED = ROOT / "tests" / "platform" / "paced_worker.py"
PLAIN = Path(__file__).with_name("plain_worker.py")
AT_ONCE = (1, 2, 4, 8)
PACES_S = (0.05, 0.3, 2.0)
PACED_JOBS = 8
DRAWN_JOBS = 16
HOLD_S = 1.0  # how long the endpoint keeps a request for jobs open
CLOSED_S = 0.25
PATIENCE_S = 600.0  # for a model to load or a job to be drawn
STAGES = ("text_s", "denoise_s", "decode_s")


@dataclass(frozen=True)
class Queue:
    """One worker and the endpoint in front of it."""

    endpoint: LocalEndpoint
    worker: LocalWorker
    http: httpx.Client

    @classmethod
    @contextmanager
    def open(cls, script: Path, env: Mapping[str, str], log: Path) -> Iterator[Self]:
        """A worker that is ready."""
        with ExitStack() as stack:
            endpoint = stack.enter_context(LocalEndpoint(EndpointConfig(hold_s=HOLD_S)))
            client = httpx.Client(base_url=endpoint.url, headers={"Authorization": "Bearer local"}, trust_env=False)
            http = stack.enter_context(client)
            variables = {"PYTHONPATH": python_path(ROOT), **env}
            worker = stack.enter_context(LocalWorker(endpoint, script, cwd=ROOT, env=variables, log_path=log))
            yield cls(endpoint, worker.wait_ready(PATIENCE_S), http)

    def submit(self, given: Mapping[str, Any]) -> str:
        """A job with this input; its id."""
        return str(self.http.post("/run", json={"input": given}).raise_for_status().json()["id"])

    def wait(self, job_id: str) -> float:
        """When it was completed.

        Raises:
            RuntimeError: it was not.
        """
        event = self.endpoint.events.wait(*FINAL_KINDS, job_id=job_id, timeout=PATIENCE_S)
        if event.kind != "completed":
            raise RuntimeError(f"a job {event.kind}: {event.data}")
        return event.at

    def clock(self, jobs: Sequence[Mapping[str, Any]]) -> tuple[float, list[str]]:
        """Seconds from when the first of these jobs is taken, while all wait, to when all are delivered; and their ids.

        The clock does not start with the end of a job before them: the SDK tells that late, when the next is under way.
        """
        with self._closed():
            sent = [self.submit(job) for job in jobs]
        ended = max(self.wait(job_id) for job_id in sent)
        taken = min(self.endpoint.events.wait("taken", job_id=job_id).at for job_id in sent)
        return ended - taken, sent

    @contextmanager
    def _closed(self) -> Iterator[None]:
        """Inside the `with`, the worker asks for jobs and is told that there are none."""
        faults = [Fault(on=name, status=204, delay_s=CLOSED_S) for name in ("job-take", "job-take-batch")]
        self.endpoint.faults += faults
        time.sleep(HOLD_S + 2 * CLOSED_S)  # requests that were open before have been answered
        try:
            yield
        finally:
            for fault in faults:
                self.endpoint.faults.remove(fault)


@dataclass
class _Row:
    name: str
    queue: Queue
    against: str | None = None
    delivered: list[float] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)
    first_s: float = 0.0


def play_jobs(scene: Scene, model: Path, rounds: int, ours: Sequence[Mapping[str, str]]) -> list[Case]:
    """`JOBS_AT_ONCE` of 1 and 8 in turns, with each of these settings."""
    # Here, because it imports torch, which the scene about sleeping can spare.
    from benchmarks.contestants import describe_job, name_ours

    logging.getLogger("httpx").setLevel(logging.WARNING)
    job = describe_job(scene)
    rows: list[_Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for settings in ours:
            alone = name_ours({"JOBS_AT_ONCE": "1", **settings})
            for at_once in ("1", "8"):
                env = {"JOBS_AT_ONCE": at_once, **settings}
                opened = Queue.open(ROOT / "handler.py", {"MODEL_NAME": str(model), **env}, folder / f"{len(rows)}.log")
                queue = stack.enter_context(opened)
                rows.append(_Row(name_ours(env), queue, alone if at_once != "1" else None))
        for row in rows:
            row.first_s, _ = _play_round(row.queue, job, 0)
        for number in range(1, rounds + 1):
            for row in rows:
                delivered, drawn = _play_round(row.queue, job, number * DRAWN_JOBS)
                row.delivered.append(delivered)
                row.drawn.append(drawn)
    return [case for row in rows for case in _report(row)]


def _play_round(queue: Queue, job: Mapping[str, Any], seed: int) -> tuple[float, float]:
    """Seconds until all are delivered, and seconds of drawing in them."""
    jobs = [{**job, "seed": seed + number} for number in range(DRAWN_JOBS)]
    seconds, sent = queue.clock(jobs)
    return seconds, count_drawing(queue.worker.log(), sent)


def count_drawing(log: str, job_ids: Sequence[str]) -> float:
    """Seconds of drawing in which these jobs of one picture were drawn, from the log's line for each.

    Jobs that are drawn at once are each told the whole time of their batch.
    """
    figures = {str(line["requestId"]): line for line in _read_lines(log) if "batch" in line}
    return math.fsum(figures[one][stage] / figures[one]["batch"] for one in job_ids for stage in STAGES)


def _read_lines(log: str) -> Iterator[dict[str, Any]]:
    """The objects in a log; two threads may have written theirs into one line."""
    decoder = json.JSONDecoder()
    for start in re.finditer(r'\{"requestId"', log):
        with suppress(json.JSONDecodeError):
            yield decoder.raw_decode(log, start.start())[0]


def _report(row: _Row) -> Iterator[Case]:
    delivered, drawing = f"{row.name}: delivered", f"{row.name}: drawing"
    others = [(f"{row.against}: {what}",) if row.against else () for what in ("delivered", "drawing")]
    yield Case(delivered, tuple(row.delivered), others[0], first_s=row.first_s)
    yield Case(drawing, tuple(row.drawn), others[1])


def play_between(rounds: int) -> list[Case]:
    """The plain function, and the real worker with each `JOBS_AT_ONCE`, in turns; seconds for each job."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    taken: dict[tuple[float, str], list[float]] = {}
    scripts: dict[str, tuple[Path, dict[str, str]]] = {"a plain function": (PLAIN, {})} | {
        f"`JOBS_AT_ONCE={at_once}`": (PACED, {"JOBS_AT_ONCE": str(at_once)}) for at_once in AT_ONCE
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        queues = {
            name: stack.enter_context(Queue.open(script, env, folder / f"{number}.log"))
            for number, (name, (script, env)) in enumerate(scripts.items())
        }
        for _ in range(rounds):
            for pace in PACES_S:
                for name, queue in queues.items():
                    taken.setdefault((pace, name), []).append(_clock_pace(queue, pace))
    return [_report_pace(pace, name, seconds) for (pace, name), seconds in taken.items()]


def _clock_pace(queue: Queue, pace: float) -> float:
    job = {"prompt": f"draw {pace}", "width": 64, "height": 64}
    seconds, _ = queue.clock([job] * PACED_JOBS)
    return seconds / PACED_JOBS


def _report_pace(pace: float, name: str, seconds: Sequence[float]) -> Case:
    plain = "a plain function"
    against = (f"{pace:g} s, {plain}",) if name != plain else ()
    return Case(f"{pace:g} s, {name}", tuple(seconds), against)
