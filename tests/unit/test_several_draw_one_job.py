"""Where several draw, a job's pictures are divided among them, and it is answered as if one had drawn it."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers.asking import ask
from worker.engine.drawing import Drawing, Outcome
from worker.engine.meter import NO_USAGE, Usage
from worker.errors import InternalError, JobCancelledError, SettingsError, WorkerBrokenError
from worker.plan import Plan, make_plan
from worker.request import GeneratedImage
from worker.runtime.batcher import Batcher
from worker.runtime.parts import SharedJob
from worker.runtime.replicas import make_replicas

STEPS = 3
WAIT_S = 20.0


@dataclass(eq=False)
class Card:
    """Draws black pictures, `STEPS` steps each, as soon as it may; and says what it has drawn."""

    name: str
    room: int = 8
    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    drawn: list[list[int]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    wants: bool = False
    helpers: list["Card | None"] = field(default_factory=list)
    breaks: int = 0  # batches that it fails at, like a card that has fallen off the bus
    breaks_after: int = 0  # pictures of those
    answers: bool = True

    def max_batch(self, _: Plan) -> int:
        return self.room

    def wants_help(self, plan: Plan) -> bool:
        return self.wants

    def works(self) -> bool:
        return self.answers

    def goes_on_alone(self) -> bool:
        return False

    def draw(self, drawings: Sequence[Drawing], helper: "Card | None") -> list[Outcome]:
        self.helpers.append(helper)
        self.threads.add(threading.get_ident())
        self.begun.set()
        self.go.wait(WAIT_S)
        if helper is not None and not helper.answers:
            return [Outcome(WorkerBrokenError(f"{helper.name} is gone"), 0.0, NO_USAGE, [], 0) for _ in drawings]
        outcomes = [self._draw(one) for one in drawings]
        self.drawn.append([picture.seed for one in drawings for picture in one.plan.request.pictures])
        return outcomes

    def _draw(self, one: Drawing) -> Outcome:
        error: Exception | None = None
        try:
            one.check()
            pictures = one.plan.request.pictures
            for step in range(STEPS * len(pictures)):
                if self.breaks and step == STEPS * self.breaks_after:
                    self.breaks -= 1
                    raise WorkerBrokenError(f"{self.name} is gone")
                one.on_step(step + 1, STEPS * len(pictures), None)
                if step % STEPS == STEPS - 1:
                    one.on_picture(GeneratedImage(pictures[step // STEPS], Image.new("RGB", (8, 8)), False))
        except Exception as caught:
            error = caught
        return Outcome(error, time.monotonic(), Usage(1.0, 2.0, 3.0, 5), [self.name], len(one.plan.request.pictures))


@dataclass
class Job:
    """A job of some pictures, and what is heard of it."""

    drawing: Drawing
    seeds: list[int] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)


def a_job(pictures: int, seed: int = 0, **fields: Any) -> Job:
    plan = make_plan(ask(prompt="a star", num_images=pictures, seed=seed, **fields))
    job = Job(Drawing(plan, lambda *_: None, lambda _: None))
    job.drawing = Drawing(
        plan,
        on_step=lambda done, total, _: job.steps.append((done, total)),
        on_picture=lambda one: job.seeds.append(one.picture.seed),
    )
    return job


@pytest.fixture
def cards() -> list[Card]:
    return [Card("first"), Card("second"), Card("third")]


@pytest.fixture
def lost() -> list[str]:
    """What the batcher has told of cards that are gone."""
    return []


@pytest.fixture
def batcher(cards: list[Card], lost: list[str]) -> Iterator[Batcher]:
    batcher = Batcher(cards, on_loss=lambda loss: lost.append(str(loss)))
    yield batcher
    _let_go(cards)
    batcher.close()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as callers:
        yield callers


def _let_go(cards: Sequence[Card]) -> None:
    for card in cards:
        card.go.set()


def _all_drawn(cards: Sequence[Card]) -> list[int]:
    return sorted(seed for card in cards for batch in card.drawn for seed in batch)


@pytest.mark.parametrize("pictures", [1, 2, 3, 4, 7, 16])
def test_pictures_are_divided_and_come_in_their_order(pictures: int, batcher: Batcher, cards: list[Card]) -> None:
    _let_go(cards)
    job = a_job(pictures)
    outcome = batcher.draw(job.drawing)
    assert outcome.error is None
    assert job.seeds == list(range(pictures))
    assert _all_drawn(cards) == list(range(pictures))


def test_each_has_its_share_where_all_are_idle(
    batcher: Batcher, cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    waiting = callers.submit(batcher.draw, a_job(7).drawing)
    assert all(card.begun.wait(WAIT_S) for card in cards)
    _let_go(cards)
    waiting.result(WAIT_S)
    assert sorted(len(card.drawn[0]) for card in cards) == [2, 2, 3]


def test_progress_counts_all_pictures_and_never_goes_back(batcher: Batcher, cards: list[Card]) -> None:
    _let_go(cards)
    job = a_job(6)
    batcher.draw(job.drawing)
    # Three threads tell of their steps; each count is told once.
    assert sorted(job.steps) == [(done, 6 * STEPS) for done in range(1, 6 * STEPS + 1)]


def test_what_became_of_the_parts_is_said_as_of_one(batcher: Batcher, cards: list[Card], callers: Any) -> None:
    waiting = callers.submit(batcher.draw, a_job(3).drawing)
    assert all(card.begun.wait(WAIT_S) for card in cards)
    _let_go(cards)
    outcome = waiting.result(WAIT_S)
    assert outcome.usage == Usage(3.0, 6.0, 9.0, 5)
    assert sorted(outcome.warnings) == ["first", "second", "third"]
    assert outcome.batch == 1


def test_each_card_has_a_thread_of_its_own(batcher: Batcher, cards: list[Card]) -> None:
    _let_go(cards)
    for seed in range(5):
        batcher.draw(a_job(6, seed).drawing)
    assert all(len(card.threads) == 1 for card in cards)
    assert len(set.union(*(card.threads for card in cards))) == len(cards)


def test_jobs_of_one_picture_are_divided_like_pictures_of_one_job(
    batcher: Batcher, cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    held = callers.submit(batcher.draw, a_job(3, steps=9).drawing)
    assert all(card.begun.wait(WAIT_S) for card in cards)
    jobs = [a_job(1, seed=100 + number) for number in range(9)]
    waiting = []
    for job in jobs:
        waiting.append(callers.submit(batcher.draw, job.drawing))
        _until(lambda: len(batcher._waiting) == len(waiting))
    _let_go(cards)
    held.result(WAIT_S)
    assert all(one.result(WAIT_S).error is None for one in waiting)
    assert max(len(batch) for card in cards for batch in card.drawn[1:]) == 3, "a third of nine, and no more"


def test_a_job_is_not_divided_while_others_wait_that_are_unlike_it(
    cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    pair = cards[:2]
    batcher = Batcher(pair)
    held = callers.submit(batcher.draw, a_job(2, steps=9).drawing)
    assert all(card.begun.wait(WAIT_S) for card in pair)
    waiting = []
    for steps in (5, 6, 7):
        waiting.append(callers.submit(batcher.draw, a_job(4, seed=10 * steps, steps=steps).drawing))
        _until(lambda: len(batcher._waiting) == len(waiting))
    _let_go(pair)
    held.result(WAIT_S)
    for one in waiting:
        assert one.result(WAIT_S).error is None
    batches = [batch for card in pair for batch in card.drawn if batch[0] >= 50]
    assert [50, 51, 52, 53] in batches and [60, 61, 62, 63] in batches
    batcher.close()


def test_a_lost_cards_pictures_are_drawn_by_the_others(
    batcher: Batcher, cards: list[Card], lost: list[str], callers: ThreadPoolExecutor
) -> None:
    cards[1].breaks = 1
    job = a_job(6)
    waiting = callers.submit(batcher.draw, job.drawing)
    assert all(card.begun.wait(WAIT_S) for card in cards)
    _let_go(cards)
    assert waiting.result(WAIT_S).error is None
    assert job.seeds == list(range(6))
    assert lost == ["second is gone"] and cards[1] not in batcher.artists
    assert max(done for done, _ in job.steps) <= 6 * STEPS
    drawn = len(cards[1].drawn)
    batcher.draw(a_job(6).drawing)
    assert len(cards[1].drawn) == drawn, "it draws nothing more"


def test_progress_does_not_go_back_for_a_card_that_is_lost(cards: list[Card], callers: ThreadPoolExecutor) -> None:
    first, second = pair = cards[:2]
    batcher = Batcher(pair)
    second.breaks = second.breaks_after = 1
    job = a_job(6)
    waiting = callers.submit(batcher.draw, job.drawing)
    assert all(card.begun.wait(WAIT_S) for card in pair)
    second.go.set()
    _until(lambda: second not in batcher.artists)
    first.go.set()
    assert waiting.result(WAIT_S).error is None
    done = [done for done, _ in job.steps]
    assert done == sorted(done) and job.steps[-1] == (6 * STEPS, 6 * STEPS)
    assert job.seeds == list(range(6))
    batcher.close()


def test_what_breaks_when_all_is_drawn_costs_no_job(cards: list[Card], lost: list[str]) -> None:
    batcher = Batcher(cards[:1], on_loss=lambda loss: lost.append(str(loss)))
    _let_go(cards)
    draw = cards[0].draw
    error = WorkerBrokenError("gone")
    cards[0].draw = lambda *given: [replace(one, error=error) for one in draw(*given)]  # type: ignore[method-assign]
    job = a_job(2)
    assert batcher.draw(job.drawing).error is None
    assert job.seeds == [0, 1] and lost == ["gone"]
    batcher.close()


def test_a_job_that_breaks_two_cards_is_not_given_to_a_third(
    batcher: Batcher, cards: list[Card], lost: list[str]
) -> None:
    cards[0].breaks = cards[1].breaks = 5
    _let_go(cards)
    outcome = batcher.draw(a_job(1).drawing)
    assert isinstance(outcome.error, WorkerBrokenError)
    assert len(lost) == 2
    assert batcher.draw(a_job(1).drawing).error is None


def test_the_last_card_is_asked_whatever_it_has_said(cards: list[Card], lost: list[str]) -> None:
    batcher = Batcher(cards[:1], on_loss=lambda loss: lost.append(str(loss)))
    cards[0].breaks = 1
    _let_go(cards)
    assert isinstance(batcher.draw(a_job(2).drawing).error, WorkerBrokenError)
    assert lost == ["first is gone"]
    assert batcher.draw(a_job(1).drawing).error is None
    batcher.close()


def test_a_failure_ends_the_whole_job_and_no_other(
    batcher: Batcher, cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    job = a_job(12)
    told = job.drawing.on_step

    def fail(done: int, total: int, preview: Any) -> None:
        if done == 2:
            raise InternalError("a bug")
        told(done, total, preview)

    failing = Drawing(job.drawing.plan, fail, job.drawing.on_picture)
    waiting = callers.submit(batcher.draw, failing)
    assert all(card.begun.wait(WAIT_S) for card in cards)
    other = callers.submit(batcher.draw, a_job(2, seed=50).drawing)
    _let_go(cards)
    outcome = waiting.result(WAIT_S)
    assert isinstance(outcome.error, (InternalError, JobCancelledError))
    assert other.result(WAIT_S).error is None


def test_a_job_that_nobody_wants_any_more_leaves_the_row(
    batcher: Batcher, cards: list[Card], callers: ThreadPoolExecutor
) -> None:
    held = callers.submit(batcher.draw, a_job(3).drawing)
    assert all(card.begun.wait(WAIT_S) for card in cards)

    def check() -> None:
        raise JobCancelledError("nobody wants it")

    plan = a_job(5, seed=70, steps=9).drawing.plan
    with pytest.raises(JobCancelledError):
        batcher.draw(Drawing(plan, lambda *_: None, lambda _: None, check=check))
    _let_go(cards)
    held.result(WAIT_S)
    assert all(seed < 70 for seed in _all_drawn(cards))


def test_one_picture_is_helped_by_who_has_nothing_to_do(cards: list[Card], callers: ThreadPoolExecutor) -> None:
    for card in cards:
        card.wants = True
    batcher = Batcher(cards)
    helped = callers.submit(batcher.draw, a_job(1).drawing)
    assert cards[0].begun.wait(WAIT_S)
    assert cards[0].helpers == [cards[2]]
    other = callers.submit(batcher.draw, a_job(1, seed=9).drawing)
    assert cards[1].begun.wait(WAIT_S)
    assert cards[1].helpers == [None], "the third helps already"
    waiting = callers.submit(batcher.draw, a_job(2, seed=20, steps=9).drawing)
    _until(lambda: len(batcher._waiting) == 1)
    assert not cards[2].begun.is_set(), "it draws nothing while it helps"
    _let_go(cards)
    assert all(one.result(WAIT_S).error is None for one in (helped, other, waiting))
    batcher.draw(a_job(3, seed=50).drawing)
    assert [card.helpers[-1] for card in cards] == [None] * 3, "and where there is a picture for each, nobody helps"
    batcher.close()


def test_a_helper_that_breaks_is_left_out_and_not_whom_it_helped(
    cards: list[Card], lost: list[str], callers: ThreadPoolExecutor
) -> None:
    first, second = pair = cards[:2]
    first.wants, second.answers = True, False
    _let_go(pair)
    batcher = Batcher(pair, on_loss=lambda loss: lost.append(str(loss)))
    job = a_job(1)
    assert batcher.draw(job.drawing).error is None
    assert job.seeds == [0]
    assert list(batcher.artists) == [first] and lost == ["second is gone"]
    batcher.close()


def test_nothing_else_is_done_with_a_card_while_it_helps(cards: list[Card], callers: ThreadPoolExecutor) -> None:
    first, second = pair = cards[:2]
    first.wants = True
    batcher = Batcher(pair)
    helped = callers.submit(batcher.draw, a_job(1).drawing)
    assert first.begun.wait(WAIT_S) and first.helpers == [second]
    asked = callers.submit(batcher.run, threading.get_ident, second)
    assert not wait([asked], 0.2).done
    _let_go(pair)
    assert helped.result(WAIT_S).error is None and asked.result(WAIT_S)
    batcher.close()


def test_what_a_failure_takes_from_the_row_is_not_handed_out_meanwhile(
    cards: list[Card], callers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair = cards[:2]
    batcher = Batcher(pair)

    def fail(*_: Any) -> None:
        raise InternalError("a bug")

    def look(one: SharedJob) -> Any:
        """The row is looked through by the second card, when the first one fails."""
        if threading.get_ident() in second.threads and not first.go.is_set():
            first.go.set()
            time.sleep(0.3)
        return one.drawing.plan.batch_key

    first.go.set()
    held = callers.submit(batcher.draw, a_job(2, seed=100, steps=9).drawing)
    _until(lambda: second.begun.is_set() and first in batcher._idle)
    first.go.clear()
    first.begun.clear()
    failing = callers.submit(batcher.draw, Drawing(a_job(8).drawing.plan, fail, lambda _: None))
    assert first.begun.wait(WAIT_S), "half of it is drawn by the first one, and half waits"
    monkeypatch.setattr(SharedJob, "key", property(look))
    second.go.set()
    assert isinstance(failing.result(WAIT_S).error, InternalError)
    assert held.result(WAIT_S).error is None
    assert batcher.draw(a_job(2, seed=50).drawing).error is None, "both still draw"
    batcher.close()


def test_what_is_done_in_a_cards_thread_waits_for_what_it_draws(batcher: Batcher, cards: list[Card]) -> None:
    _let_go(cards)
    batcher.draw(a_job(3).drawing)
    for card in cards:
        assert {batcher.run(threading.get_ident, card)} == card.threads


def test_nothing_is_lost_while_cards_fail_at_random(lost: list[str]) -> None:
    """Four cards, of which two break; forty jobs at once are all answered, each with its own pictures or the break."""
    cards = [Card(str(number), room=3, breaks=int(number in (1, 3))) for number in range(4)]
    _let_go(cards)
    batcher = Batcher(cards, on_loss=lambda loss: lost.append(str(loss)))
    jobs = [a_job(1 + number % 5, seed=100 * number, steps=5 + number % 2) for number in range(40)]
    with ThreadPoolExecutor(40) as callers:
        outcomes = list(callers.map(lambda job: batcher.draw(job.drawing), jobs))
    batcher.close()
    assert len(lost) == 2
    for job, outcome in zip(jobs, outcomes, strict=True):
        assert outcome.error is None or isinstance(outcome.error, WorkerBrokenError)
        if outcome.error is None:
            assert job.seeds == [one.seed for one in job.drawing.plan.request.pictures]
    assert sum(outcome.error is None for outcome in outcomes) >= 38


def _engines(number: int, graphs: object) -> Any:
    return [SimpleNamespace(device=torch.device("cuda", one), graphs=graphs) for one in range(number)]


def test_gpus_that_share_pictures_come_in_pairs_and_with_graphs() -> None:
    assert [one.name for one in make_replicas(_engines(4, "some"), "2")] == ["cuda:0", "cuda:2"]
    assert len(make_replicas(_engines(3, None), "auto")) == 3
    with pytest.raises(SettingsError, match=r"^GPUS_PER_PICTURE: got 2; this worker draws with 3$"):
        make_replicas(_engines(3, "some"), "2")
    with pytest.raises(SettingsError, match=r"^GPUS_PER_PICTURE: got 2; only graphs of passes are shared"):
        make_replicas(_engines(2, None), "2")


def _until(condition: Any) -> None:
    until = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()
