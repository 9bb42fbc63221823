"""RunPod's side: the queue, who is handed which job, when workers are added and stopped, and what is billed.

Jobs are handed out in their order. Which of several idle workers is handed one RunPod does not say.
"""

import math
import random
from collections import deque
from dataclasses import dataclass

import simpy
from simpy.events import ProcessGenerator

from benchmarks.scaling.policies import Policy, QueueDelay
from benchmarks.scaling.service import Sdk, Service
from benchmarks.scaling.worker import Job, Worker


@dataclass
class _Request:
    """A worker's open request for so many jobs."""

    worker: Worker
    wanted: int
    answer: simpy.Event


class Platform:
    """One endpoint.

    Attributes:
        queue: jobs that no worker has taken.
        ended: jobs that are delivered.
        workers: those that are billed now.
        stopped: those that were.
    """

    def __init__(self, env: simpy.Environment, policy: Policy, service: Service, sdk: Sdk, seed: int) -> None:
        """Its active workers are there and warm."""
        self.env = env
        self.policy, self.service, self.sdk = policy, service, sdk
        self.numbers = random.Random(seed)
        self.queue: deque[Job] = deque()
        self.ended: list[Job] = []
        self.workers: list[Worker] = []
        self.stopped: list[Worker] = []
        self.in_progress = 0
        self.most_workers = 0
        self._requests: deque[_Request] = deque()
        for _ in range(policy.active):
            self._add_worker(active=True)

    def submit(self, job: Job) -> None:
        """A job comes in."""
        self.queue.append(job)
        self._hand_out()
        if not isinstance(self.policy.rule, QueueDelay):
            self._meet_count()
        elif not self.workers:
            self._add_worker()
        elif self.queue:
            self.env.process(self._watch(job, self.policy.rule.seconds))

    def take(self, worker: Worker, wanted: int) -> simpy.Event:
        """Jobs for a worker, as soon as there are any."""
        request = _Request(worker, wanted, self.env.event())
        self._requests.append(request)
        self._hand_out()
        return request.answer

    def deliver(self, job: Job, worker: Worker) -> None:
        """A job's picture has come."""
        job.ended = self.env.now
        self.ended.append(job)
        self.in_progress -= 1
        worker.release()
        if worker.in_hand == 0:
            self.note_idle(worker)
        self._meet_count()

    def note_idle(self, worker: Worker) -> None:
        """A worker has nothing to do; it is stopped when that lasts for the idle timeout."""
        worker.idle_since = self.env.now
        if not worker.active:
            self.env.process(self._expire(worker, self.env.now))

    def _hand_out(self) -> None:
        while self.queue and self._requests:
            request = self._requests.pop() if self.policy.newest_first else self._requests.popleft()
            jobs = [self.queue.popleft() for _ in range(min(request.wanted, len(self.queue)))]
            self.in_progress += len(jobs)
            for job in jobs:
                job.taken = self.env.now
            request.worker.accept(len(jobs))
            request.answer.succeed(jobs)

    def _add_worker(self, active: bool = False) -> None:
        if len(self.workers) >= self.policy.max_workers:
            return
        self.workers.append(Worker(self, active))
        self.most_workers = max(self.most_workers, len(self.workers))

    def _meet_count(self) -> None:
        while len(self.workers) < min(self._count_wanted(), self.policy.max_workers):
            self._add_worker()

    def _count_wanted(self) -> int:
        rule = self.policy.rule
        return 0 if isinstance(rule, QueueDelay) else rule.count_wanted(len(self.queue), self.in_progress)

    def _watch(self, job: Job, seconds: float) -> ProcessGenerator:
        yield self.env.timeout(seconds)
        if job.taken is None:
            self._add_worker()

    def _expire(self, worker: Worker, since: float) -> ProcessGenerator:
        yield self.env.timeout(self.policy.idle_s)
        while worker.idle_since == since and len(self.workers) <= self._count_wanted():
            yield self.env.timeout(1.0)
        if worker.idle_since == since:
            self._stop(worker)

    def _stop(self, worker: Worker) -> None:
        self._requests = deque(one for one in self._requests if one.worker is not worker)
        self.workers.remove(worker)
        worker.stopped = self.env.now
        self.stopped.append(worker)

    def bill(self, begin: float = 0.0, end: float = math.inf) -> int:
        """Seconds of workers between these times: of each from its start to its stop, rounded up.

        One that is not stopped is billed until now.
        """
        lives = (
            (max(one.started, begin), min(self.env.now if one.stopped is None else one.stopped, end))
            for one in (*self.stopped, *self.workers)
        )
        return sum(math.ceil(stop - start) for start, stop in lives if stop > start)
