"""What people read in the log of a worker on the platform."""

import json
from collections.abc import Iterator


def read_messages(written: str) -> Iterator[str]:
    """Every line of what was said, those of tracebacks too; each of the log's own lines is an object of JSON."""
    for line in written.splitlines():
        yield from json.loads(line)["message"].splitlines() if line.startswith("{") else [line]
