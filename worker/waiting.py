"""Waits that can be left: what is waited for goes on in a thread of its own, and nobody hears what comes of it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")

CHECK_S = 0.2  # between two looks at whether the result is still wanted


def wait_for(result: Future[Result], check: Callable[[], None]) -> Result:
    """The result, unless `check`, called every 0.2 s meanwhile, raises before it is there."""
    while not wait([result], CHECK_S).done:
        check()
    return result.result()


def start_thread(action: Callable[[], Result], name: str) -> Future[Result]:
    """What this gives, done in a thread of its own, for which nobody has to wait, at the process's end either."""
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(action())
        except BaseException as error:  # whoever waits must hear it
            result.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
    return result


class TooManyLeftError(Exception):
    """As many calls as may be left behind are still under way."""


class LeavableCalls:
    """Calls of one kind, each in a thread of its own; how many may be left behind is bounded."""

    def __init__(self, name: str, max_left: int) -> None:
        """None is under way.

        Args:
            name: of the threads.
            max_left: calls that nobody waits for any more.
        """
        self._name = name
        self._max_left = max_left
        self._left: list[Future[object]] = []
        self._lock = threading.Lock()

    def call(self, action: Callable[[], Result], check: Callable[[], None]) -> Result:
        """What this gives; left behind as soon as `check` raises.

        Raises:
            TooManyLeftError: too many earlier ones were, and go on.
        """
        with self._lock:
            self._left = [one for one in self._left if not one.done()]
            if len(self._left) >= self._max_left:
                raise TooManyLeftError(f"{len(self._left)} earlier ones have not ended yet")
        result = start_thread(action, self._name)
        try:
            return wait_for(result, check)
        finally:
            if not result.done():
                with self._lock:
                    self._left.append(result)  # type: ignore[arg-type]
