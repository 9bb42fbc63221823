"""A worker's side: RunPod's SDK, which takes jobs, and the one thread that draws them, several at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpy.events import ProcessGenerator

if TYPE_CHECKING:
    from benchmarks.scaling.platform import Platform


@dataclass(eq=False, slots=True)
class Job:
    """One job of one picture; times in seconds.

    Attributes:
        work: its share of drawing, in times of the model's usual.
    """

    submitted: float
    work: float = 1.0
    taken: float | None = None
    ended: float | None = None

    @property
    def delay(self) -> float:
        """From when it was asked for until it was delivered."""
        assert self.ended is not None
        return self.ended - self.submitted


class Worker:
    """From when it is added until it is stopped.

    Attributes:
        active: always there.
        in_hand: jobs that are taken and not delivered.
        idle_since: since when it has had none; None while it has, and while it starts.
        drawing_s: seconds in which it drew.
    """

    def __init__(self, platform: Platform, active: bool) -> None:
        """An active one is warm; another starts now."""
        self.platform, self.env = platform, platform.env
        self.active = active
        self.started: float = self.env.now
        self.stopped: float | None = None
        self.in_hand = 0
        self.idle_since: float | None = None
        self.drawing_s = 0.0
        self._waiting: list[Job] = []
        self._called = self.env.event()
        self._has_room = self.env.event()
        self.env.process(self._take_jobs())
        self.env.process(self._draw_jobs())

    def accept(self, jobs: int) -> None:
        """So many jobs are handed to it."""
        self.in_hand += jobs
        self.idle_since = None

    def release(self) -> None:
        """One of its jobs is delivered."""
        self.in_hand -= 1
        if not self._has_room.triggered:
            self._has_room.succeed()

    def _take_jobs(self) -> ProcessGenerator:
        """As the SDK does: it asks while there is room, and looks again for room once in a while."""
        if not self.active:
            yield self.env.timeout(self.platform.policy.cold_start_s)
        self.platform.note_idle(self)
        while True:
            while (room := self.platform.policy.at_once - self.in_hand) <= 0:
                yield from self._sleep_until_room()
            jobs = yield self.platform.take(self, room)
            self.env.process(self._start_jobs(jobs))

    def _sleep_until_room(self) -> ProcessGenerator:
        began, every = self.env.now, self.platform.sdk.full_s
        self._has_room = self.env.event()
        yield self._has_room
        slept = self.env.now - began
        if every:
            yield self.env.timeout(math.ceil(slept / every) * every - slept)

    def _start_jobs(self, jobs: Sequence[Job]) -> ProcessGenerator:
        sdk = self.platform.sdk
        yield self.env.timeout(self.platform.numbers.uniform(0.0, sdk.start_s))
        for job in jobs:
            self._waiting.append(job)
            yield self.env.timeout(sdk.apart_s)
        if not self._called.triggered:  # who has nothing to draw waits for all that are handed over together
            self._called.succeed()

    def _draw_jobs(self) -> ProcessGenerator:
        """What waits is drawn together, as much as is drawn at once."""
        service = self.platform.service
        while True:
            if not self._waiting:
                self._called = self.env.event()
                yield self._called
            batch, self._waiting = self._waiting[: service.max_batch], self._waiting[service.max_batch :]
            seconds = service.seconds[len(batch) - 1] * sum(job.work for job in batch) / len(batch)
            yield self.env.timeout(seconds)
            self.drawing_s += seconds
            for job in batch:
                self.platform.deliver(job, self)
