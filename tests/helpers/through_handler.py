"""Jobs through the handler function, and the pictures of their answers."""

import base64
import io
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from PIL import Image as Pillow
from PIL.Image import Image

from worker.runtime.worker import Worker


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
