"""The local endpoint keeps its rules whatever is asked in whatever order: its API against a small model of them."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.helpers.fuzzing import TIMES_AS_LONG

WAITING, RUNNING, DONE, FAILED, CANCELLED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED"
OVER = (DONE, FAILED, CANCELLED)
WORKERS = ("one", "other")
NUMBERS = st.integers(0, 999)
BY_WHOM = st.sampled_from(("its own", "its own", *WORKERS))
WHICH = st.integers(0, 11)  # of the jobs: 0 to 8 of those that the rule is about, where there are some


@dataclass
class Known:
    """A job as it must be."""

    id: str
    state: str = WAITING
    worker: str | None = None
    output: Any = None
    error: str | None = None
    unread: list[Any] = field(default_factory=list)

    def wait_again(self) -> None:
        self.state, self.worker, self.output, self.error, self.unread = WAITING, None, None, None, []


class Rules(RuleBasedStateMachine):
    """Callers and two workers, one of which may be lost at any time."""

    names = itertools.count()

    def __init__(self, platform: Any) -> None:
        super().__init__()
        self.platform, self.turn = platform, next(self.names)
        self.jobs: list[Known] = []
        self.queue: list[Known] = []
        self.stops: dict[str, list[str]] = {}
        self.retried = 0
        self.before = Counter(platform.call("GET", "/health")["jobs"])

    def worker(self, name: str) -> str:
        return f"{name}-{self.turn}"

    def work(self, method: str, path: str, **options: Any) -> Any:
        return self.platform.http.request(method, path, params={"key": self.platform.config.worker_key}, **options)

    def post(self, kind: str, worker: str, job: Known | None, body: dict[str, Any]) -> bool:
        """Whether what a worker posts about a job shall have an effect."""
        worker = job.worker if job and job.worker and worker not in WORKERS else self.worker(worker)
        path = f"/{kind}/{worker}/{job.id if job else 'nobody'}"
        assert self.work("POST", path, json=body).status_code == 200
        self.stops.setdefault(worker, [])
        return job is not None and job.state == RUNNING and job.worker == worker

    def pick(self, which: int, *states: str) -> Known | None:
        pool = [job for job in self.jobs if job.state in states and which < 9] or self.jobs
        return pool[-1 - which % len(pool)] if pool else None

    @rule(number=NUMBERS, low=st.booleans())
    def submit(self, number: int, low: bool) -> None:
        self.jobs.append(Known(self.platform.submit(number, policy={"lowPriority": low})))
        self.queue.append(self.jobs[-1])

    @rule(worker=st.sampled_from(WORKERS), count=st.integers(1, 3))
    def take(self, worker: str, count: int) -> None:
        worker = self.worker(worker)
        self.stops.setdefault(worker, [])
        params = {"key": self.platform.config.worker_key, "batch_size": count}
        answer = self.platform.http.get(f"/job-take-batch/{worker}", params=params)
        given, self.queue = self.queue[:count], self.queue[count:]

        assert [job["id"] for job in (answer.json() if answer.status_code == 200 else [])] == [job.id for job in given]
        for job in given:
            job.state, job.worker = RUNNING, worker

    @rule(worker=BY_WHOM, which=WHICH, number=NUMBERS, failed=st.booleans())
    def finish(self, worker: str, which: int, number: int, failed: bool) -> None:
        job = self.pick(which, RUNNING)
        if self.post("job-done", worker, job, {"error" if failed else "output": str(number)}) and job:
            job.state, job.output, job.error = (FAILED, None, str(number)) if failed else (DONE, str(number), None)

    @rule(worker=BY_WHOM, which=WHICH, number=NUMBERS)
    def tell_progress(self, worker: str, which: int, number: int) -> None:
        job = self.pick(which, RUNNING)
        if self.post("job-done", worker, job, {"status": RUNNING, "output": number}) and job:
            job.output = number

    @rule(worker=BY_WHOM, which=WHICH, number=NUMBERS)
    def send_chunk(self, worker: str, which: int, number: int) -> None:
        job = self.pick(which, RUNNING)
        if self.post("job-stream", worker, job, {"output": number}) and job:
            job.unread.append({"output": number})

    @rule(which=WHICH)
    def read_stream(self, which: int) -> None:
        if job := self.pick(which):
            self._compare_stream(job)

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        if job := self.pick(which, WAITING, RUNNING):
            self._cancelled(job)
            assert self.platform.call("POST", f"/cancel/{job.id}")["status"] == job.state

    @rule(which=WHICH)
    def retry(self, which: int) -> None:
        if job := self.pick(which, FAILED):
            may = job.state == FAILED
            assert self.platform.http.post(f"/retry/{job.id}").status_code == (200 if may else 400)
            if may:
                job.wait_again()
                self.queue.append(job)
                self.retried += 1

    @rule()
    def purge(self) -> None:
        waiting = list(self.queue)
        assert self.platform.call("POST", "/purge-queue")["removed"] == len(waiting)
        for job in waiting:
            self._cancelled(job)

    @rule(worker=st.sampled_from(WORKERS))
    def ask_what_to_stop(self, worker: str) -> None:
        worker = self.worker(worker)
        answer = self.work("GET", f"/job-stop/{worker}")
        told = answer.json()["jobsToStop"] if answer.status_code == 200 else []
        assert told == self.stops.get(worker, [])
        self.stops[worker] = []

    @rule(worker=st.sampled_from(WORKERS))
    def lose(self, worker: str) -> None:
        worker = self.worker(worker)
        if worker in self.stops:
            events = self.platform.events
            count = len(events.of("worker_gone", worker_id=worker)) + 1
            self.platform.worker_gone(worker, "lost")
            events.wait("worker_gone", worker_id=worker, count=count)
            back = [job for job in self.jobs if job.worker == worker and job.state == RUNNING]
            for job in back:
                job.wait_again()
            self.queue, self.retried = back + self.queue, self.retried + len(back)
            del self.stops[worker]

    @rule(which=WHICH)
    def look(self, which: int) -> None:
        if job := self.pick(which):
            self._compare(job)

    @invariant()
    def the_last_job_is_shown_as_it_is(self) -> None:
        if self.jobs:
            self._compare(self.jobs[-1])

    def _compare(self, job: Known) -> None:
        shown = self.platform.call("GET", f"/status/{job.id}")
        assert (shown["status"], shown.get("workerId")) == (job.state, job.worker)
        assert (shown.get("output"), shown.get("error")) == (job.output, job.error)

    def _compare_stream(self, job: Known) -> None:
        assert self.platform.call("GET", f"/stream/{job.id}") == {"status": job.state, "stream": job.unread}
        job.unread = []

    def _compare_counts(self) -> None:
        states = Counter(job.state for job in self.jobs)
        counts = {"completed": states[DONE], "failed": states[FAILED], "retried": self.retried}
        counts |= {"inProgress": states[RUNNING], "inQueue": states[WAITING]}
        shown = self.platform.call("GET", "/health")["jobs"]
        assert {name: number - self.before[name] for name, number in shown.items()} == counts

    def teardown(self) -> None:
        try:
            self._compare_counts()
            for job in self.jobs:
                self._compare(job)
                self._compare_stream(job)
        finally:
            for job in self.jobs:
                self.platform.call("POST", f"/cancel/{job.id}")

    def _cancelled(self, job: Known) -> None:
        if job.state == RUNNING and job.worker in self.stops:
            self.stops[job.worker].append(job.id)
        if job in self.queue:
            self.queue = [other for other in self.queue if other is not job]
        if job.state not in OVER:
            job.state = CANCELLED


@pytest.mark.fuzz
def test_whatever_is_asked_in_whatever_order_the_rules_hold(start_platform: Any) -> None:
    # Results are kept, for /health counts no others, and `make fuzz` may go on for longer than they usually are.
    platform = start_platform(hold_s=0.01, stream_hold_s=0.01, worker_lost_s=600, keep_result_s=86_400)
    limits = settings(max_examples=40 * TIMES_AS_LONG, stateful_step_count=25)
    run_state_machine_as_test(lambda: Rules(platform), settings=limits)
