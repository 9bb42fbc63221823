"""Whatever fails where several draw, each job has one answer, its pictures or why not; and the next one is drawn."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

from tests.helpers.asking import ask
from worker.engine.drawing import Drawing, Outcome
from worker.engine.meter import NO_USAGE
from worker.errors import (
    InternalError,
    JobCancelledError,
    JobTimeoutError,
    OutOfMemoryError,
    WorkerBrokenError,
)
from worker.plan import Plan, make_plan
from worker.request import GeneratedImage
from worker.runtime.batcher import Batcher

CARDS = 3
STEPS = 2  # of a picture
JOBS, SEEDS = 120, range(8)
WAIT_S = 20.0


def _nothing(*_: Any) -> Any:
    return None


@dataclass(eq=False)
class Card:
    """Draws black pictures; what is given may raise.

    Attributes:
        before: called before it draws any of these.
        during: called with each picture's seed before that is drawn; what it raises ends the job.
        after: called with the outcomes; gives what is told in their place, if it likes.
        choose: called for how many it draws at once, and whether it wants help.
    """

    name: str
    room: int = 8
    before: Callable[[Sequence[Drawing]], Any] = _nothing
    during: Callable[[int], Any] = _nothing
    after: Callable[[list[Outcome]], Any] = _nothing
    choose: Callable[[Plan], Any] = _nothing
    drawn: list[int] = field(default_factory=list)

    def max_batch(self, plan: Plan) -> int:
        self.choose(plan)
        return self.room

    def wants_help(self, plan: Plan) -> bool:
        return bool(self.choose(plan))

    def works(self) -> bool:
        return True

    def goes_on_alone(self) -> bool:
        return False

    def draw(self, drawings: Sequence[Drawing], helper: "Card | None") -> list[Outcome]:
        self.before(drawings)
        outcomes = [self._draw(one) for one in drawings]
        told = self.after(outcomes)
        return outcomes if told is None else told

    def _draw(self, one: Drawing) -> Outcome:
        error: Exception | None = None
        pictures = one.plan.request.pictures
        try:
            one.check()
            for number, picture in enumerate(pictures):
                self.during(picture.seed)
                for step in range(STEPS):
                    one.on_step(number * STEPS + step + 1, STEPS * len(pictures), None)
                one.on_picture(GeneratedImage(picture, Image.new("RGB", (8, 8)), False))
                self.drawn.append(picture.seed)
        except Exception as caught:
            error = caught
        return Outcome(error, time.monotonic(), NO_USAGE, [], len(pictures))


@dataclass
class Job:
    """A job, what is heard of it, and when nobody wants it any more."""

    seeds: list[int]
    drawing: Drawing
    heard: list[int] = field(default_factory=list)


def a_job(pictures: int, seed: int = 0, check: Callable[[], Any] = _nothing, **fields: Any) -> Job:
    plan = make_plan(ask(prompt="a star", num_images=pictures, seed=seed, **fields))
    heard: list[int] = []
    drawing = Drawing(plan, lambda *_: check(), lambda one: heard.append(one.picture.seed), check=check)
    return Job([seed + number for number in range(pictures)], drawing, heard)


@pytest.fixture
def cards() -> list[Card]:
    return [Card(str(number)) for number in range(CARDS)]


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as callers:
        yield callers


def _answer(batcher: Batcher, job: Job) -> BaseException | None:
    """Why it has not all of its pictures; None if it has."""
    try:
        return batcher.draw(job.drawing).error
    except Exception as error:
        return error


@pytest.mark.parametrize("help_wanted", [False, True])
def test_a_card_that_cannot_choose_for_one_job_draws_the_others(
    help_wanted: bool, cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    def choose(plan: Plan) -> bool:
        if plan.request.pictures[0].seed == 70 and (help_wanted or plan.request.num_inference_steps == 9):
            raise KeyError("a bug")
        return help_wanted

    for card in cards:
        card.choose = choose
    batcher = Batcher(cards)
    jobs = [a_job(1, seed, steps=steps) for seed, steps in ((1, 5), (70, 9), (2, 5), (3, 7))]
    found = [one.result(WAIT_S) for one in [callers.submit(_answer, batcher, job) for job in jobs]]
    assert [type(one) for one in found] == [type(None), KeyError, type(None), type(None)]
    batcher.close()


@pytest.mark.parametrize("pictures", [1, 2])
def test_nobody_is_answered_with_what_became_of_another(
    pictures: int, cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    """A card says of one job less than it had what became of it; it is nobody's."""
    card, held, go = cards[0], threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        held.set()
        assert go.wait(WAIT_S)

    card.before = hold
    batcher = Batcher([card])
    other = callers.submit(_answer, batcher, a_job(1, 90, steps=9))
    assert held.wait(WAIT_S)
    jobs = [a_job(pictures, 10 * number) for number in range(3)]
    waiting = [callers.submit(_answer, batcher, job) for job in jobs]
    _until(lambda: len(batcher._waiting) == len(jobs))
    card.before, card.after = _nothing, lambda outcomes: outcomes[1:]
    go.set()
    assert all(isinstance(one.result(WAIT_S), ValueError) for one in waiting)
    other.result(WAIT_S)
    batcher.close()


def test_a_job_that_is_given_up_is_not_answered_with_half_of_its_pictures(
    cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    """It is left out of the row while a part of it is drawn that is not asked any more."""
    first, second = cards[:2]
    held, begun, asked, go = (threading.Event() for _ in range(4))

    def hold(event: threading.Event) -> None:
        event.set()
        assert go.wait(WAIT_S)

    def check() -> None:
        if begun.is_set() and not asked.is_set():
            asked.set()
            raise JobCancelledError("nobody wants it")

    first.before, second.before = lambda _: hold(held), lambda _: hold(begun)
    batcher = Batcher([first, second])
    other = callers.submit(_answer, batcher, a_job(1, 90, steps=9))
    assert held.wait(WAIT_S)
    job = a_job(4)
    asking = Drawing(job.drawing.plan, _nothing, job.drawing.on_picture, check=check)
    waiting = callers.submit(batcher.draw, asking)
    assert asked.wait(WAIT_S)
    time.sleep(0.1)  # for it to leave the row
    go.set()
    assert isinstance(waiting.result(WAIT_S).error, JobCancelledError)
    assert other.result(WAIT_S) is None
    batcher.close()


def test_what_is_too_large_for_one_card_is_drawn_by_the_others(cards: list[Card], callers: ThreadPoolExecutor) -> None:
    cards[0].during = cards[2].during = _run_out
    batcher = Batcher(cards)
    for number in range(5):
        job = a_job(6, 10 * number)
        assert callers.submit(_answer, batcher, job).result(WAIT_S) is None
        assert job.heard == job.seeds
    assert sorted(cards[1].drawn) == sorted(10 * number + one for number in range(5) for one in range(6))
    batcher.close()


def test_what_is_too_large_for_all_is_tried_once_by_each(cards: list[Card], callers: ThreadPoolExecutor) -> None:
    tried: list[str] = []
    for card in cards:
        card.during = _run_out
        card.before = lambda _, card=card: tried.append(card.name)  # type: ignore[misc]
    batcher = Batcher(cards)
    assert isinstance(callers.submit(_answer, batcher, a_job(1)).result(WAIT_S), OutOfMemoryError)
    assert sorted(tried) == sorted(card.name for card in cards)
    batcher.close()


def test_what_waits_for_the_only_card_that_it_is_not_too_large_for_does_not_wait_for_ever(
    cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    first, second = cards[:2]
    first.during = _run_out
    go = threading.Event()
    second.before = lambda _: go.wait(WAIT_S)
    batcher = Batcher([first, second])
    other = callers.submit(_answer, batcher, a_job(1, 50, steps=9))
    _until(lambda: batcher._idle == [first])
    waiting = callers.submit(_answer, batcher, a_job(1))
    _until(lambda: len(batcher._waiting) >= 1 and first in batcher._idle)
    batcher.leave_out(second, WorkerBrokenError("it has failed a proof"))
    assert isinstance(waiting.result(WAIT_S), OutOfMemoryError)
    go.set()
    other.result(WAIT_S)
    batcher.close()


def test_a_process_that_has_no_room_for_threads_does_not_begin(
    cards: list[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        Batcher(cards)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_has_one_answer_while_everything_fails_at_random(seed: int, cards: list[Card]) -> None:
    chance = random.Random(seed)
    for card in cards:
        _make_unreliable(card, random.Random(f"{seed} {card.name}"))
    lost: list[str] = []
    batcher = Batcher(cards, on_loss=lambda loss: lost.append(str(loss)))
    jobs = [_random_job(number, chance) for number in range(JOBS)]
    with ThreadPoolExecutor(24) as callers:
        waiting = [callers.submit(_answer, batcher, job) for job in jobs]
        errors = [one.result(WAIT_S) for one in waiting]
        heard = [list(job.heard) for job in jobs]
    for job, error in zip(jobs, errors, strict=True):
        assert error is not None or job.heard == job.seeds
        assert job.heard == job.seeds[: len(job.heard)], "in their order, each once"
    assert {type(one) for one in errors} >= {type(None), KeyError, JobCancelledError, JobTimeoutError}
    for card in cards:
        card.before = card.during = card.after = card.choose = _nothing
    with ThreadPoolExecutor(1) as callers:
        after = a_job(9, 5000)
        assert callers.submit(_answer, batcher, after).result(WAIT_S) is None
        assert after.heard == after.seeds
        callers.submit(batcher.close).result(WAIT_S)
    assert heard == [job.heard for job in jobs], "nothing more is heard of what is answered"
    assert len(lost) >= CARDS - len(batcher.artists)


def _random_job(number: int, chance: random.Random) -> Job:
    """Some are given up after a while, some have no time left at a step."""
    asked, patience = [0], chance.choice([2, 5, 10**9, 10**9, 10**9])
    reason: Any = chance.choice([JobCancelledError, JobTimeoutError])

    def check() -> None:
        asked[0] += 1
        if asked[0] > patience:
            raise reason("no more")

    return a_job(chance.randint(1, 5), 10 * number, check, steps=chance.choice([5, 6]))


def _make_unreliable(card: Card, chance: random.Random) -> None:
    """All that can fail fails now and then, the third batch surely."""
    batches = itertools.count(1)

    def before(_: Sequence[Drawing]) -> None:
        fail(1.0 if next(batches) == 3 else 0.0, KeyError)
        fail(0.05, KeyError, SystemError)

    def fail(share: float, *errors: Any) -> None:
        if chance.random() < share:
            raise chance.choice(errors)("at random")

    def after(outcomes: list[Outcome]) -> list[Outcome]:
        return outcomes[1:] if chance.random() < 0.02 else outcomes

    def choose(_: Plan) -> bool:
        fail(0.02, KeyError)
        return chance.random() < 0.5

    def during(_: int) -> None:
        time.sleep(chance.random() * 0.002)
        fail(0.08, OutOfMemoryError, OutOfMemoryError, InternalError)
        fail(0.01 if card.name != "0" else 0.0, WorkerBrokenError)

    card.room = chance.randint(1, 4)
    card.before, card.during, card.after, card.choose = before, during, after, choose


def _run_out(*_: Any) -> None:
    raise OutOfMemoryError("too large for this card")


def _until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()
