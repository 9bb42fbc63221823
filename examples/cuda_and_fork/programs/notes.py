"""What the programs leave for run_all: which process has loaded, drawn, or failed, one line of JSON each."""

import contextlib
import json
import os
from collections.abc import Iterator


@contextlib.contextmanager
def noting(event: str) -> Iterator[None]:
    """Note what has been done, or the exception, which goes on to whoever serves."""
    try:
        yield
    except Exception as error:
        note("failed", f"{type(error).__name__}: {error}")
        raise
    note(event)


def note(event: str, text: str = "") -> None:
    """One line in the file that `CUDA_AND_FORK_NOTES` names; none where it names none."""
    if path := os.environ.get("CUDA_AND_FORK_NOTES"):
        line = json.dumps({"pid": os.getpid(), "event": event, "text": text}) + "\n"
        with open(path, "a") as notes:  # one short write in append mode: processes do not mix their lines
            notes.write(line)
