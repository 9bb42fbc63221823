"""Decides what is drawn next, and what together: jobs take their turn, and those with one batch key share it."""

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from worker.engine.drawing import Drawing, Outcome
from worker.plan import Plan

Result = TypeVar("Result")
DrawJobs = Callable[[Sequence[Drawing]], Sequence[Outcome]]


@dataclass(frozen=True, eq=False)
class _Waiting:
    """One job that waits to be drawn, what became of it, and whose log lines it writes."""

    drawing: Drawing
    outcome: Future[Outcome] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)

    @property
    def key(self) -> Hashable:
        """Equal for jobs that can be drawn at once."""
        return self.drawing.plan.batch_key

    @property
    def pictures(self) -> int:
        """How many it wants."""
        return len(self.drawing.plan.request.pictures)


class Batcher:
    """The one thread that draws, and the jobs that wait for it.

    The engine and its CUDA context are used by this thread alone. Jobs are drawn in the order in which they came,
    except that those with the batch key of the first are drawn with it, as many as there is room for.
    """

    def __init__(self, draw_jobs: DrawJobs, max_batch: Callable[[Plan], int]) -> None:
        """Nothing waits.

        Args:
            draw_jobs: draws jobs of one batch key; what becomes of each is its outcome.
            max_batch: pictures of a plan that are drawn at once; a job with more is drawn without others.
        """
        self._max_batch = max_batch
        self._draw_jobs = draw_jobs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []

    def draw(self, drawing: Drawing) -> Outcome:
        """What becomes of the job, once it is its turn."""
        one = _Waiting(drawing)
        with self._lock:
            self._waiting.append(one)
        self._thread.submit(self._draw_next)
        return one.outcome.result()

    def run(self, action: Callable[[], Result]) -> Result:
        """What this gives, done in the drawing thread after what waits already."""
        return self._thread.submit(copy_context().run, action).result()

    def close(self) -> None:
        """Draw what waits, then end the thread."""
        self._thread.shutdown()

    def _draw_next(self) -> None:
        """The first that waits and those that are drawn with it; nothing, if all were drawn with others."""
        if not (batch := self._take_batch()):
            return
        try:
            outcomes = batch[0].context.run(self._draw_jobs, [one.drawing for one in batch])
            for one, outcome in zip(batch, outcomes, strict=True):
                one.outcome.set_result(outcome)
        except BaseException as error:  # whoever waits must hear it
            for one in batch:
                one.outcome.set_exception(error)

    def _take_batch(self) -> list[_Waiting]:
        with self._lock:
            batch, pictures = self._waiting[:1], sum(one.pictures for one in self._waiting[:1])
            room = self._max_batch(batch[0].drawing.plan) if batch else 0
            for one in self._waiting[1:]:
                if one.key == batch[0].key and pictures + one.pictures <= room:
                    batch.append(one)
                    pictures += one.pictures
            self._waiting = [one for one in self._waiting if one not in batch]
        return batch
