"""A worker that is told to stop does not wait for what it compiles, which can take minutes."""

import signal
from collections.abc import Callable
from typing import Any


def test_it_leaves_when_it_is_told_to(start_worker: Callable[..., Any]) -> None:
    worker = start_worker("tests/platform/compiling_worker.py")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.orphans == []
