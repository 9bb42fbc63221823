"""A JSON file of a model -> the object in it, or one sentence that says what stands there instead."""

import json
from pathlib import Path
from typing import Any

from worker.errors import ModelError

MAX_JSON_BYTES = 100_000_000  # a vocabulary of 260,000 tokens takes a third of it


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: there is none.
    """
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ModelError(f"{path} has {size} bytes; should have {MAX_JSON_BYTES} at most")
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} should hold a JSON object")
    return content
