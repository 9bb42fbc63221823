"""Which jobs are drawn together: those with the key of the first that waits, in the order in which they came."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers.asking import ask
from worker.plan import make_plan
from worker.runtime.batcher import Batcher


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    """One with its thread."""
    batcher = Batcher()
    yield batcher
    batcher.close()


def _draw_all(batcher: Batcher, jobs: list[tuple[str, Callable[[], Any]]]) -> list[Any]:
    """What each returns or raises, all of them waiting before the first is drawn."""
    hold = threading.Event()

    def caught(key: str, draw: Callable[[], Any]) -> Any:
        try:
            return batcher.draw(key, draw)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs) + 1) as threads:
        first = threads.submit(batcher.draw, "nobody's", hold.wait)
        waiting = []
        for job in jobs:
            waiting.append(threads.submit(caught, *job))
            time.sleep(0.02)  # so that they come in this order
        hold.set()
        first.result()
        return [one.result() for one in waiting]


def test_jobs_of_one_key_follow_the_first_of_them(batcher: Batcher) -> None:
    order: list[str] = []
    names = ["a1", "b1", "a2", "c1", "b2", "a3"]
    _draw_all(batcher, [(name[0], lambda name=name: order.append(name)) for name in names])  # type: ignore[misc]
    assert order == ["a1", "a2", "a3", "b1", "b2", "c1"]


def test_each_hears_of_its_own(batcher: Batcher) -> None:
    def fail() -> None:
        raise KeyError("mine")

    found = _draw_all(batcher, [("a", lambda: 1), ("a", fail), ("a", lambda: 3), ("b", lambda: 4)])
    assert [found[0], found[2], found[3]] == [1, 3, 4]
    assert isinstance(found[1], KeyError)


def test_all_are_drawn_by_one_thread(batcher: Batcher) -> None:
    threads = _draw_all(batcher, [(key, threading.get_ident) for key in "abab"])
    assert len(set(threads)) == 1 and threads[0] != threading.get_ident()


ALIKE = [{"prompt": "another"}, {"seed": 5}, {"negative_prompt": "grey"}, {"num_images": 3}]
OTHER = [{"width": 128}, {"steps": 9}, {"guidance_scale": 3.0}, {"scheduler": "DDIM"}, {"hires": {"scale": 2.0}}]


@pytest.mark.parametrize("fields", ALIKE)
def test_what_may_differ_in_a_batch(fields: dict[str, Any]) -> None:
    assert make_plan(ask(**fields)).batch_key == make_plan(ask()).batch_key


@pytest.mark.parametrize("fields", OTHER)
def test_what_may_not(fields: dict[str, Any]) -> None:
    assert make_plan(ask(**fields)).batch_key != make_plan(ask()).batch_key
