"""A JSON file of a model -> the object in it, or one sentence that says what stands there instead."""

import json
from pathlib import Path
from typing import Any

from worker.errors import ModelError
from worker.files import read_file
from worker.models.paths import name_unreadable

MAX_JSON_BYTES = 100_000_000  # a vocabulary of 260,000 tokens takes a third of it


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: there is none.
    """
    with name_unreadable():
        text = read_file(path, MAX_JSON_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} should hold a JSON object")
    return content
