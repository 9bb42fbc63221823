"""Decides what is drawn next, and what together: jobs that wait take their turn, those with one batch key at once."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Waiting:
    """One job that waits to be drawn.

    Attributes:
        key: equal for jobs that may be drawn together.
        draw: draws it; never called twice.
        drawn: what that returns or raises.
    """

    key: Hashable
    draw: Callable[[], Any]
    drawn: Future[Any]


class Batcher:
    """The one thread that draws, and the jobs that wait for it.

    The engine and its CUDA context are used by this thread alone. Jobs are drawn in the order in which they came,
    except that those with the key of the first follow it at once.
    """

    def __init__(self) -> None:
        """Nothing waits."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []

    def draw(self, key: Hashable, draw: Callable[[], T]) -> T:
        """What `draw` returns, called in the drawing thread when it is its turn.

        Raises:
            Exception: what `draw` raises.
        """
        one = _Waiting(key, partial(copy_context().run, draw), Future())
        with self._lock:
            self._waiting.append(one)
        self._thread.submit(self._draw_next)
        return one.drawn.result()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Draw what waits, then end the thread."""
        self._thread.shutdown()

    def _draw_next(self) -> None:
        """The first that waits and all with its key; nothing, if they were drawn with another."""
        for one in self._take_batch():
            try:
                one.drawn.set_result(one.draw())
            except BaseException as error:  # whoever waits for it must hear it
                one.drawn.set_exception(error)

    def _take_batch(self) -> list[_Waiting]:
        with self._lock:
            batch = [one for one in self._waiting if one.key == self._waiting[0].key]
            self._waiting = [one for one in self._waiting if one not in batch]
        return batch
