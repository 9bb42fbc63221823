"""Jobs through the handler function, and the pictures of their answers."""

import asyncio
import base64
import io
import threading
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest
from PIL import Image as Pillow
from PIL.Image import Image

from worker.runtime.worker import Worker

T = TypeVar("T")
WAIT_S = 60.0  # far longer than anything here takes


def ask(worker: Worker, *given: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """The answer to a job of these fields; of several values for one, the last counts."""
    answer = worker.handle({"id": "test", "input": {**ChainMap(fields, *map(dict, reversed(given)))}})
    assert isinstance(answer, dict)
    return answer


def open_picture(answered: str) -> Image:
    """A picture as it is answered."""
    return Pillow.open(io.BytesIO(base64.b64decode(answered.partition(",")[2])))


def pixels(answered: str) -> bytes:
    """Its pixels alone."""
    return open_picture(answered).tobytes()


def drawn(worker: Worker, *given: Mapping[str, Any], **fields: Any) -> Image:
    """The one picture of a job."""
    answer = ask(worker, *given, **fields)
    assert "error" not in answer, answer
    (picture,) = answer["images"]
    return open_picture(picture)


def cancel_at(
    worker: Worker, job: Mapping[str, Any], reach: Callable[[Callable[[], None]], AbstractContextManager[T]]
) -> T:
    """Cancel a job where it has come to, and wait until it is drawn no more.

    Args:
        reach: a context in which what it is given is called there, once; what that gives is returned.
    """
    begun, cancelled = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert cancelled.wait(WAIT_S)

    async def cancel() -> None:
        answer = worker.handle({"id": "unwanted", "input": dict(job)})
        assert not isinstance(answer, dict)
        waiting = asyncio.ensure_future(answer)
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with reach(hold) as seen:
        asyncio.run(cancel())
        cancelled.set()
        worker.model.batcher.run(lambda: None, worker.model.replicas[0])  # taken only when nothing else is drawn
    return seen
