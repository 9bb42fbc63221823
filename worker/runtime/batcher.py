"""Decides what is drawn next, what together, and by whom: jobs take their turn, and those with one batch key share it.

Where several draw, the pictures of a job, and of those that are drawn with it, are divided among them.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

from worker.engine.drawing import Drawing, Outcome
from worker.errors import OutOfMemoryError, WorkerBrokenError, WorkerError
from worker.plan import Plan
from worker.runtime.parts import Part, SharedJob
from worker.waiting import wait_for

Result = TypeVar("Result")

# The platform hands jobs over together, and each is read by itself: some are a little later than the first.
GATHER_S = 0.02
APART_S = 0.001


class Artist(Protocol):
    """Who draws, in a thread of its own."""

    name: str

    def draw(self, drawings: Sequence[Drawing], helper: Any | None) -> Sequence[Outcome]:
        """What becomes of these, which have one batch key.

        Args:
            helper: another one, who has nothing else to do meanwhile.
        """

    def wants_help(self, plan: Plan) -> bool:
        """Whether two draw one picture of this plan sooner than one."""

    def max_batch(self, plan: Plan) -> int:
        """Pictures of a plan that are drawn at once; a job with more is drawn without others."""

    def works(self) -> bool:
        """Whether its device still answers; asked by who draws with it."""

    def goes_on_alone(self) -> bool:
        """Whether not this one has broken but one that it has for itself, without which it draws from now on."""


class Batcher:
    """Those who draw, and the jobs that wait for them.

    An engine and its CUDA context are used by one thread alone. Jobs are drawn in the order in which they came, except
    that those with the batch key of the first are drawn with it, as many as there is room for; the first waits a moment
    for such as are being read. Who cannot draw any more is left out, and what it had in hand is drawn by the others; so
    is what was too large for one of them.
    """

    def __init__(
        self,
        artists: Sequence[Artist],
        on_loss: Callable[[WorkerError], None] = lambda _: None,
        others_come: Callable[[], bool] | None = None,
    ) -> None:
        """Nothing waits.

        Args:
            on_loss: told of each that cannot draw any more.
            others_come: whether jobs are being read that are to be drawn; None where there is one job at a time.
        """
        self._artists = list(artists)
        self._idle = list(artists)
        self._threads = {one: self._start_thread(one) for one in artists}
        self._in_use = {one: threading.Lock() for one in artists}  # in its own thread, or in that of one whom it helps
        self._on_loss, self._others_come = on_loss, others_come
        self._waiting: list[SharedJob] = []
        self._came = 0  # jobs, so far
        self._change = threading.Condition()

    def draw(self, drawing: Drawing, on_arrival: Callable[[], None] = lambda: None) -> Outcome:
        """What becomes of the job, once it is its turn. What its `check` raises until then takes it out of the row.

        Args:
            on_arrival: called when it stands in the row.
        """
        one = SharedJob(drawing)
        with self._change:
            self._waiting.append(one)
            self._came += 1
            on_arrival()
            self._gather(one)
            self._hand_out()
        return wait_for(one.outcome, partial(self._check_waiting, one))

    def run(self, action: Callable[[], Result], artist: Artist) -> Result:
        """What this gives, done in the thread of one who draws, after what that has in hand or helps with."""
        return self._threads[artist].submit(copy_context().run, self._run_alone, action, artist).result()

    def close(self) -> None:
        """Draw what waits, then end the threads."""
        with self._change:
            self._change.wait_for(lambda: not self._list_waiting() and self._idle == self._artists)
        for thread in self._threads.values():
            thread.shutdown()

    @property
    def artists(self) -> Sequence[Artist]:
        """Those who can draw."""
        return tuple(self._artists)

    def leave_out(self, artist: Artist, loss: WorkerError) -> bool:
        """Let this one draw nothing more, if there is another one; whether there is."""
        with self._change:
            if artist in self._artists and len(self._artists) > 1:
                self._artists.remove(artist)
                self._idle = [one for one in self._idle if one is not artist]
                self._hand_out()
            left_out = artist not in self._artists
        self._on_loss(loss)
        return left_out

    def _start_thread(self, artist: Artist) -> ThreadPoolExecutor:
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"draw {artist.name}".strip())
        thread.submit(lambda: None)  # else it is started for a job, which would be lost if that fails
        return thread

    def _run_alone(self, action: Callable[[], Result], artist: Artist) -> Result:
        with self._in_use[artist]:
            return action()

    def _gather(self, one: SharedJob) -> None:
        """Wait for those that may be drawn with it, while somebody has nothing in hand: until no other comes."""
        deadline = time.monotonic() + GATHER_S
        while self._others_come and self._idle and one.waiting and time.monotonic() < deadline:
            came = self._came
            self._change.wait(APART_S)
            if came == self._came and not self._others_come():
                break

    def _check_waiting(self, one: SharedJob) -> None:
        try:
            one.drawing.check()
        except Exception as error:
            with self._change:
                if one.give_up(error):  # else those who draw it are asked at their steps
                    raise

    def _hand_out(self) -> None:
        """What waits, to those who have nothing in hand."""
        served = 0
        for artist in tuple(self._idle):
            while artist in self._idle and (parts := self._take_batch(artist, served)):
                served += self._start(artist, parts)

    def _start(self, artist: Artist, parts: Sequence[Part]) -> bool:
        """Whether this one draws these now; if not, their jobs have heard why."""
        idle = tuple(self._idle)
        self._idle.remove(artist)
        try:
            self._threads[artist].submit(self._draw, artist, parts, self._find_helper(artist, parts))
        except Exception as error:  # whoever waits must hear it
            self._idle = list(idle)
            self._fail(parts, error)
            return False
        return True

    def _find_helper(self, artist: Artist, parts: Sequence[Part]) -> Artist | None:
        """One who has nothing to do, where there is one picture and no other waits."""
        alone = not self._list_waiting() and len(parts) == 1 and len(parts[0].places) == 1
        if not (self._idle and alone and artist.wants_help(parts[0].drawing.plan)):
            return None
        return self._idle.pop()

    def _list_waiting(self) -> Sequence[SharedJob]:
        """Those of which something waits; of others all is drawn, or nothing shall be any more."""
        self._waiting = [one for one in self._waiting if one.waiting]
        return self._waiting

    def _is_for(self, one: SharedJob, artist: Artist) -> bool:
        """Whether this one may draw it: not what it had too little memory for, if there is somebody else for it."""
        return artist not in one.too_large_for or not self._has_others(one)

    def _has_others(self, one: SharedJob) -> bool:
        """Whether there are some who have not had too little memory for it."""
        return any(artist not in one.too_large_for for artist in self._artists)

    def _take_batch(self, artist: Artist, served: int) -> list[Part]:
        """The first that waits for this one, or its share of it, and those that are drawn with it; none if none waits.

        Args:
            served: how many others have just had theirs.
        """
        while waiting := [one for one in self._list_waiting() if self._is_for(one, artist)]:
            try:
                max_batch = artist.max_batch(waiting[0].drawing.plan)
            except Exception as error:  # whoever waits for that one must hear it, and the others have their turn
                waiting[0].fail(error)
            else:
                return self._take_share(waiting, max_batch, served)
        return []

    def _take_share(self, waiting: Sequence[SharedJob], max_batch: int, served: int) -> list[Part]:
        first = waiting[0]
        alike = [one for one in waiting if one.key == first.key]
        # Whoever else draws takes the jobs of other keys first, if there are such.
        among = max(1, len(self._artists) - served - (len(waiting) - len(alike)))
        share = math.ceil(sum(one.waiting for one in alike) / among)
        parts = [first.take(share)]
        room = min(share, max_batch) - len(parts[0].places)
        for one in alike[1:]:
            if one.waiting <= room:
                parts.append(one.take(one.waiting))
                room -= len(parts[-1].places)
        return parts

    def _draw(self, artist: Artist, parts: Sequence[Part], helper: Artist | None) -> None:
        try:
            with self._in_use[artist], self._hold(helper):
                for part in parts:
                    part.job.begin(part)
                outcomes = parts[0].job.context().run(artist.draw, [part.drawing for part in parts], helper)
                broken = helper if helper and not helper.works() else artist
            self._end(artist, parts, outcomes, broken)
        except BaseException as error:  # whoever waits must hear it
            self._fail(parts, error)
        with self._change:
            self._idle = [one for one in self._artists if one in (artist, helper) or one in self._idle]
            self._hand_out()
            self._change.notify_all()

    def _fail(self, parts: Sequence[Part], error: BaseException) -> None:
        with self._change:
            for part in parts:
                part.job.fail(error)

    def _hold(self, helper: Artist | None) -> AbstractContextManager[Any]:
        return nullcontext() if helper is None else self._in_use[helper]

    def _end(self, artist: Artist, parts: Sequence[Part], outcomes: Sequence[Outcome], suspect: Artist) -> None:
        """Tell the jobs what became of their parts.

        Args:
            suspect: who is broken, if anybody is.
        """
        pairs = list(zip(parts, outcomes, strict=True))  # before anybody hears what is not its own
        losses = [one.error for one in outcomes if isinstance(one.error, WorkerBrokenError)]
        left_out = bool(losses) and self._leave_out(suspect, losses[0])
        with self._change:  # whoever hands out must find what waits as it was seen
            for part, outcome in pairs:
                if self._give_back(artist, part, outcome, left_out):
                    self._waiting = [part.job, *(one for one in self._list_waiting() if one is not part.job)]
                else:
                    part.job.end(part, outcome)

    def _leave_out(self, suspect: Artist, loss: WorkerError) -> bool:
        """As `leave_out`, or what this one has for itself."""
        if suspect.goes_on_alone():
            self._on_loss(loss)
            return True
        return self.leave_out(suspect, loss)

    def _give_back(self, artist: Artist, part: Part, outcome: Outcome, left_out: bool) -> bool:
        """Whether somebody else shall draw what is missing of this part.

        Args:
            left_out: whether whoever was broken draws nothing more.
        """
        if isinstance(outcome.error, OutOfMemoryError):
            part.job.too_large_for.add(artist)
            return self._has_others(part.job) and part.job.give_back(part)
        return left_out and isinstance(outcome.error, WorkerBrokenError) and part.job.redraw(part)
