"""The endpoint's queue: which job is where, and every change of it. It knows neither HTTP nor processes.

A job is in the queue, with exactly one worker, or over. Everything happens on one thread, the server's loop, so
there are no locks. What the real platform does with a result that comes late or from the wrong worker is not
published; here it is recorded and has no effect.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from local_endpoint.config import EndpointConfig
from local_endpoint.events import EventLog, Kind
from local_endpoint.jobs import Job, State, Worker
from local_endpoint.wire import write_json

_KIND_OF_END: dict[State, Kind] = {
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.TIMED_OUT: "timed_out",
}


class JobQueue:
    """Jobs, the order they wait in, and the workers seen so far."""

    def __init__(self, config: EndpointConfig, events: EventLog) -> None:
        self.config = config
        self.events = events
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.on_end: Callable[[Job], None] = lambda job: None
        self._waiting: deque[Job] = deque()

    # -- the caller's side ------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Puts a new job at the end of the queue."""
        self.jobs[job.id] = job
        self._waiting.append(job)
        self.events.record("queued", job.id)

    def cancel(self, job: Job) -> None:
        """Ends a job that waits or runs; a running one is also stopped. One that is over stays as it is."""
        if not job.final:
            self._end(job, State.CANCELLED)

    def retry(self, job: Job) -> bool:
        """Queues a failed or timed out job again, under its old id. False: it is neither."""
        if job.state not in (State.FAILED, State.TIMED_OUT):
            return False
        job.created, job.finished, job.error = time.monotonic(), None, None
        self._back(job, at_front=False)
        self.events.record("queued", job.id)
        return True

    def purge(self) -> int:
        """Cancels everything that waits, and says how many jobs that were."""
        waiting = list(self._waiting)
        for job in waiting:
            self.cancel(job)
        return len(waiting)

    # -- the worker's side ------------------------------------------------------------------------------------

    def seen(self, worker_id: str) -> Worker:
        """Notes a sign of life."""
        worker = self.workers.setdefault(worker_id, Worker(worker_id, 0.0))
        worker.last_seen = time.monotonic()
        return worker

    def take(self, worker_id: str, count: int = 1) -> list[Job]:
        """Hands up to `count` waiting jobs, oldest first, to a worker."""
        if worker := self.workers.get(worker_id):
            worker.has_asked = True
        jobs = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        for job in jobs:
            job.state, job.worker_id, job.started = State.IN_PROGRESS, worker_id, time.monotonic()
            self.events.record("taken", job.id, worker_id)
        self._forget_stops(worker_id, jobs)
        return jobs

    def give_back(self, jobs: Iterable[Job], reason: str) -> None:
        """Takes jobs from their worker and puts them first in the queue."""
        for job in reversed(list(jobs)):
            worker_id = job.worker_id
            self._back(job, at_front=True)
            self.events.record("requeued", job.id, worker_id, reason=reason)

    def progress(self, worker_id: str, job_id: str, output: Any, size: int) -> None:
        """Shows an intermediate output to the caller, unless the job is no longer this worker's."""
        if job := self._held(worker_id, job_id):
            job.output = output
        self.events.record("progress" if job else "late_progress", job_id, worker_id, size, output=output)

    def result(self, worker_id: str, job_id: str, body: dict[str, Any], size: int) -> None:
        """Ends a job with what its worker sent: FAILED with an `error`, else COMPLETED."""
        error, job = _write_error(body.get("error")), self._held(worker_id, job_id)
        facts: dict[str, Any] = {"error": error} if error else {}
        facts |= {"bytes": size, "stopPod": body.get("stopPod") is True}
        self.events.record("result" if job else "late_result", job_id, worker_id, len(error), **facts)
        if job:
            # An empty output is not sent at all; a generator's chunks stay in the stream.
            job.output, job.error = body.get("output"), error or None
            self._end(job, State.FAILED if job.error else State.COMPLETED, by_worker=True)

    def chunk(self, worker_id: str, job_id: str, output: Any, size: int) -> bool:
        """Adds one chunk of a generator's output to the job's stream. False: too much of it is unread."""
        job = self._held(worker_id, job_id)
        if job and job.unread_bytes + size > self.result_limit(job):
            return False
        if job:
            job.stream.append(output)
            job.unread_bytes += size
        self.events.record("stream", job_id, worker_id, size, output=output)
        return True

    def read_stream(self, job: Job) -> list[Any]:
        """The chunks that nobody has read yet; they count as read now."""
        chunks, job.stream, job.unread_bytes = job.stream, [], 0
        return chunks

    def result_limit(self, job: Job | None) -> int:
        """How long a post about this job may be, in bytes."""
        return self.config.sync_result_limit_bytes if job and job.sync else self.config.result_limit_bytes

    def pending_stops(self, worker_id: str) -> list[str]:
        """Jobs this worker must stop; each is told once. That a request for them is still open is no sign of life."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []
        stops, worker.stops = worker.stops, []
        for job_id in stops:
            self.events.record("stop_sent", job_id, worker_id)
        return stops

    def worker_gone(self, worker_id: str, reason: str) -> None:
        """Forgets a worker; the jobs it held go back into the queue."""
        if self.workers.pop(worker_id, None):
            self.events.record("worker_gone", worker_id=worker_id, reason=reason)
            self.give_back(self._jobs_of(worker_id), reason)

    # -- time -------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Removes jobs whose time to live is over, ends what runs too long, gives up silent workers that hold jobs,
        forgets old results."""
        now = time.monotonic()
        for job in list(self.jobs.values()):
            if job.has_expired(now):
                self._expire(job)
                continue
            if job.has_run_too_long(now):
                job.error = "executionTimeout exceeded"
                self._end(job, State.FAILED)
            keep_s = self.config.keep_sync_result_s if job.sync else self.config.keep_result_s
            if job.finished is not None and now - job.finished > keep_s:
                del self.jobs[job.id]
        for worker in list(self.workers.values()):
            silent_s = now - worker.last_seen
            if silent_s > self.config.worker_lost_s and self._jobs_of(worker.id):
                self.worker_gone(worker.id, f"no sign of life for {silent_s:.1f} s")

    def job_counts(self) -> dict[str, int]:
        """How many jobs there are, in the words of /health."""
        states = Counter(job.state for job in self.jobs.values())
        return {
            "completed": states[State.COMPLETED],
            "failed": states[State.FAILED] + states[State.TIMED_OUT],
            "inProgress": states[State.IN_PROGRESS],
            "inQueue": states[State.IN_QUEUE],
            "retried": sum(job.retries for job in self.jobs.values()),
        }

    def worker_counts(self) -> dict[str, int]:
        """How many workers there are, in the words of /health; none is ever throttled here.

        What `ready` counts is not published; in answers of RunPod that users show it is always the number of idle ones.
        """
        healthy = [worker for worker in self.workers.values() if not worker.unhealthy]
        started = [worker for worker in healthy if worker.has_asked]
        idle = sum(1 for worker in started if not self._jobs_of(worker.id))
        return {
            "idle": idle,
            "initializing": len(healthy) - len(started),
            "ready": idle,
            "running": len(started) - idle,
            "throttled": 0,
            "unhealthy": len(self.workers) - len(healthy),
        }

    # -- inside -----------------------------------------------------------------------------------------------

    def _jobs_of(self, worker_id: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.worker_id == worker_id and job.state is State.IN_PROGRESS]

    def _forget_stops(self, worker_id: str, jobs: Iterable[Job]) -> None:
        """Tells a worker no more to stop what it is to do again: the stop was meant for the try before."""
        if worker := self.workers.get(worker_id):
            taken = {job.id for job in jobs}
            worker.stops = [job_id for job_id in worker.stops if job_id not in taken]

    def _held(self, worker_id: str, job_id: str) -> Job | None:
        job = self.jobs.get(job_id)
        return job if job and job.worker_id == worker_id and job.state is State.IN_PROGRESS else None

    def _back(self, job: Job, at_front: bool) -> None:
        job.state, job.worker_id, job.started, job.output = State.IN_QUEUE, None, None, None
        self.read_stream(job)  # nobody shall take what was left half done for a part of what comes
        job.retries += 1
        if at_front:
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)

    def _expire(self, job: Job) -> None:
        """Who waits for its answer right now still hears how it ended."""
        job.error = f"job exceeded its time to live of {job.ttl_ms} ms"
        self._end(job, State.TIMED_OUT)
        del self.jobs[job.id]

    def _end(self, job: Job, state: State, by_worker: bool = False) -> None:
        if job.state is State.IN_QUEUE:
            self._waiting.remove(job)
        elif not by_worker and job.worker_id in self.workers:
            self.workers[job.worker_id].stops.append(job.id)
        job.state, job.finished = state, time.monotonic()
        facts: dict[str, Any] = {"error": job.error} if job.error else {}
        self.events.record(_KIND_OF_END[state], job.id, job.worker_id, **facts)
        self.on_end(job)


def _write_error(error: Any) -> str:
    """A worker's `error` as text, empty if it stands for none."""
    if isinstance(error, str):
        return error
    return write_json(error).decode() if error else ""
