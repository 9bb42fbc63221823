"""A job whose pictures are drawn in parts, perhaps by several at once: what the parts tell is told as of one."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

from worker.engine.drawing import Drawing, Outcome, join_outcomes
from worker.engine.steps import MakePreview
from worker.errors import JobCancelledError, WorkerBrokenError
from worker.request import GeneratedImage

MAX_REDRAWS = 1  # of one job, when who drew it has broken: what breaks a second one may be the job itself


@dataclass(frozen=True, eq=False)
class Part:
    """Some of a job's pictures, by their places in it, and these alone as a drawing."""

    job: "SharedJob"
    places: Sequence[int]
    drawing: Drawing


class SharedJob:
    """One job that waits to be drawn, and what became of it.

    Attributes:
        drawing: all of it.
        outcome: of all of it, once nothing of it is drawn any more.
        too_large_for: those who had too little memory for a part of it.
    """

    def __init__(self, drawing: Drawing) -> None:
        """Nothing of it is drawn yet."""
        self.drawing = drawing
        self.outcome: Future[Outcome] = Future()
        self.too_large_for: set[Any] = set()
        self._context = copy_context()
        self._pictures = len(drawing.plan.request.pictures)
        self._waiting = list(range(self._pictures))
        self._under_way: dict[int, Part] = {}  # by their first picture
        self._begun: set[int] = set()  # of those, what is being drawn
        self._steps: dict[int, int] = {}  # done, likewise
        self._each = 0  # of a picture
        self._told = 0
        self._drawn: dict[int, GeneratedImage] = {}
        self._handed_on = 0
        self._ended: list[Outcome] = []
        self._redraws = 0
        self._failed = False
        self._given_up: Exception | None = None
        self._lock = Lock()

    @property
    def key(self) -> Hashable:
        """Equal for jobs that can be drawn at once."""
        return self.drawing.plan.batch_key

    @property
    def waiting(self) -> int:
        """Its pictures that are still to be drawn, and by nobody yet."""
        return len(self._waiting)

    def context(self) -> Context:
        """Whose log lines are written while a part of it is drawn."""
        return self._context.copy()

    def take(self, pictures: int) -> Part:
        """The first so many of those that wait."""
        with self._lock:
            places, self._waiting = self._waiting[:pictures], self._waiting[pictures:]
            part = Part(self, places, self._draw_only(places))
            self._under_way[places[0]] = part
            return part

    def begin(self, part: Part) -> None:
        """It is drawn from now on, and asked at its steps whether it is still wanted."""
        with self._lock:
            self._begun.add(part.places[0])

    def redraw(self, part: Part) -> bool:
        """As `give_back`, if not too many have broken over this job."""
        if self._redraws >= MAX_REDRAWS:
            return False
        self._redraws += 1
        return self.give_back(part)

    def give_back(self, part: Part) -> bool:
        """Whether the pictures that this part has not drawn wait again, for somebody else to draw them."""
        with self._lock:
            missing = [place for place in part.places if place not in self._drawn]
            if self._failed or self._given_up or not missing:
                return False
            self._steps.pop(part.places[0], None)
            if drawn := len(part.places) - len(missing):  # the first of them
                self._steps[part.places[0]] = drawn * self._each
            del self._under_way[part.places[0]]
            self._begun.discard(part.places[0])
            self._waiting = sorted([*missing, *self._waiting])
            return True

    def give_up(self, reason: Exception) -> bool:
        """Draw nothing of it that is not being drawn; whether nothing is."""
        with self._lock:
            self._waiting, self._given_up = [], reason
            return not self._begun

    def end(self, part: Part, outcome: Outcome) -> None:
        """This became of a part; after a failure nothing more of the job is drawn."""
        with self._lock:
            if isinstance(outcome.error, WorkerBrokenError) and all(place in self._drawn for place in part.places):
                outcome = replace(outcome, error=None)  # it came when all was there
            self._under_way.pop(part.places[0], None)
            self._begun.discard(part.places[0])
            self._ended.append(outcome)
            if outcome.error is not None:
                self._failed, self._waiting = True, []
            over = not self._under_way and not self._waiting
        if over and not self.outcome.done():
            joined = join_outcomes(self._ended)
            whole = len(self._drawn) == self._pictures
            self.outcome.set_result(joined if whole else replace(joined, error=joined.error or self._given_up))

    def fail(self, error: BaseException) -> None:
        """Nobody draws it, or can."""
        with self._lock:
            self._failed, self._waiting, self._under_way = True, [], {}
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _draw_only(self, places: Sequence[int]) -> Drawing:
        plan = self.drawing.plan
        pictures = tuple(plan.request.pictures[place] for place in places)
        return replace(
            self.drawing,
            plan=replace(plan, request=replace(plan.request, pictures=pictures)),
            on_step=partial(self._step, places),
            on_picture=partial(self._hand_on, iter(places)),
            check=self._check,
        )

    def _check(self) -> None:
        self._check_parts()
        self.drawing.check()

    def _check_parts(self) -> None:
        if self._failed:
            raise JobCancelledError("another part of this job has failed")

    def _step(self, places: Sequence[int], done: int, total: int, make_preview: MakePreview | None) -> None:
        with self._lock:
            self._check_parts()
            self._steps[places[0]], self._each = done, total // len(places)
            self._told = max(self._told, sum(self._steps.values()))  # what is drawn once more counts once
            done, leads = self._told, places[0] == min(self._under_way)
        # All pictures take the same passes.
        total = max(done, total * self._pictures // len(places))
        self.drawing.on_step(done, total, make_preview if leads else None)

    def _hand_on(self, places: Iterator[int], picture: GeneratedImage) -> None:
        """Pictures in their order, whoever is the first to have one."""
        with self._lock:
            self._check_parts()
            self._drawn[next(places)] = picture
            while self._handed_on in self._drawn:
                self.drawing.on_picture(self._drawn[self._handed_on])
                self._handed_on += 1
