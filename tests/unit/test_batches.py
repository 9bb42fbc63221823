"""Which jobs are drawn together: those with the key of the first that waits, in the order in which they came."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers.asking import ask
from worker.engine.drawing import Drawing, Outcome
from worker.engine.meter import Usage
from worker.errors import InternalError
from worker.plan import Plan, make_plan
from worker.runtime import batcher as batcher_module
from worker.runtime.batcher import Batcher

MAX_BATCH = 4


class Engine:
    """Notes what it is given to draw, and when it is held, waits."""

    name = "one"

    def __init__(self, room: int = MAX_BATCH) -> None:
        self.room = room
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()

    def max_batch(self, _: Plan) -> int:
        return self.room

    def wants_help(self, _: Plan) -> bool:
        return False

    def draw(self, drawings: Sequence[Drawing], _: None) -> list[Outcome]:
        self.threads.add(threading.get_ident())
        self.batches.append([one.plan.request.pictures[0].prompt for one in drawings])
        self.go.wait(10)
        if "broken" in self.batches[-1]:
            raise KeyError("not even an outcome")
        return [self._outcome(prompt) for prompt in self.batches[-1]]

    def _outcome(self, prompt: str) -> Outcome:
        error = InternalError(prompt) if "bad" in prompt else None
        return Outcome(error, time.monotonic(), Usage(0.0, 0.0, 0.0, None), (), 1, False)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    """One with its thread."""
    batcher = Batcher([engine])
    yield batcher
    engine.go.set()
    batcher.close()


def _drawing(prompt: str, **fields: Any) -> Drawing:
    return Drawing(make_plan(ask(prompt=prompt, **fields)), lambda *_: None, lambda _: None)


def _draw_all(batcher: Batcher, engine: Engine, jobs: Sequence[Drawing]) -> list[Any]:
    """What becomes of each, all of them waiting before the first is drawn."""

    def caught(job: Drawing, came: threading.Event) -> Any:
        try:
            return batcher.draw(job, on_arrival=came.set).error
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs) + 1) as threads:
        first = threads.submit(batcher.draw, _drawing("nobody's", steps=99), (came := threading.Event()).set)
        came.wait(10.0)
        waiting = []
        for job in jobs:
            waiting.append(threads.submit(caught, job, came := threading.Event()))
            came.wait(10.0)  # so that they come in this order
        engine.go.set()
        first.result()
        return [one.result() for one in waiting]


def test_jobs_of_one_key_are_drawn_with_the_first_of_them(batcher: Batcher, engine: Engine) -> None:
    steps = {"a": 5, "b": 6, "c": 7}
    names = ["a1", "b1", "a2", "c1", "b2", "a3"]
    _draw_all(batcher, engine, [_drawing(name, steps=steps[name[0]]) for name in names])
    assert engine.batches[1:] == [["a1", "a2", "a3"], ["b1", "b2"], ["c1"]]


def test_no_more_pictures_than_are_drawn_at_once(batcher: Batcher, engine: Engine) -> None:
    counts = {"a": 1, "b": 2, "c": 2, "d": 9, "e": 1}
    _draw_all(batcher, engine, [_drawing(name, num_images=count) for name, count in counts.items()])
    assert engine.batches[1:] == [["a", "b", "e"], ["c"], ["d"]]


def test_one_at_a_time_is_first_come_first_served() -> None:
    engine = Engine(room=1)
    batcher = Batcher([engine])
    jobs = [_drawing(name, steps={"a": 5, "b": 6}[name[0]]) for name in ("a1", "b1", "a2")]
    _draw_all(batcher, engine, jobs)
    batcher.close()
    assert engine.batches[1:] == [["a1"], ["b1"], ["a2"]]


def test_each_hears_of_its_own(batcher: Batcher, engine: Engine) -> None:
    found = _draw_all(batcher, engine, [_drawing(name) for name in ("one", "bad", "three")])
    assert found[0] is None and found[2] is None
    assert str(found[1]) == "bad"


def test_a_batch_without_outcomes_keeps_nobody_waiting_and_the_next_is_drawn(batcher: Batcher, engine: Engine) -> None:
    jobs = [_drawing("one"), _drawing("broken"), _drawing("later", steps=30)]
    found = _draw_all(batcher, engine, jobs)
    assert [type(one) for one in found] == [KeyError, KeyError, type(None)]


def test_all_are_drawn_by_one_thread(batcher: Batcher, engine: Engine) -> None:
    _draw_all(batcher, engine, [_drawing(str(number), steps=number) for number in range(3, 7)])
    assert len(engine.threads) == 1 and threading.get_ident() not in engine.threads


ALIKE = [{"prompt": "another"}, {"seed": 5}, {"negative_prompt": "grey"}, {"num_images": 3}]
OTHER = [{"width": 128}, {"steps": 9}, {"guidance_scale": 3.0}, {"scheduler": "DDIM"}, {"hires": {"scale": 2.0}}]


@pytest.mark.parametrize("fields", ALIKE)
def test_what_may_differ_in_a_batch(fields: dict[str, Any]) -> None:
    assert make_plan(ask(**fields)).batch_key == make_plan(ask()).batch_key


@pytest.mark.parametrize("fields", OTHER)
def test_what_may_not(fields: dict[str, Any]) -> None:
    assert make_plan(ask(**fields)).batch_key != make_plan(ask()).batch_key


def test_those_that_come_a_moment_later_are_drawn_with_the_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the platform hands over several jobs: all at once, and each is read by itself."""
    monkeypatch.setattr(batcher_module, "GATHER_S", 10.0)  # or a machine with other things to do would be too slow
    being_read = {"one", "two", "three"}
    batcher = Batcher([engine], others_come=lambda: bool(being_read))
    engine.go.set()

    def read_and_draw(name: str) -> Outcome:
        time.sleep(0.01 * len(name))
        return batcher.draw(_drawing(name), on_arrival=lambda: being_read.discard(name))

    with ThreadPoolExecutor(3) as threads:
        for one in [threads.submit(read_and_draw, name) for name in list(being_read)]:
            assert one.result().error is None
    batcher.close()
    assert [set(batch) for batch in engine.batches] == [{"one", "two", "three"}]


def test_the_first_waits_for_a_moment_only(engine: Engine) -> None:
    batcher = Batcher([engine], others_come=lambda: True)
    engine.go.set()
    assert batcher.draw(_drawing("one")).error is None
    batcher.close()
    assert engine.batches == [["one"]]
