"""Standard output and error that never fail: what a full disk or a closed pipe does not take is lost, and nothing else.

Without this, one line of the log, or of the SDK's, would end the worker.
"""

import io
import sys
from typing import Any, TextIO


class _LossyFile(io.FileIO):
    """An open file of the system's that says of every write that it has succeeded."""

    def write(self, data: Any, /) -> int:
        """Write all of it, as far as that is possible."""
        left = memoryview(data).cast("B")
        size = left.nbytes
        try:
            while left:
                left = left[super().write(left) or left.nbytes :]  # none of it: nobody empties the pipe
        except OSError:
            pass
        return size


def keep_output_from_failing() -> None:
    """Let no write to standard output and error of this process raise any more."""
    sys.stdout = _make_lossy(sys.stdout)
    sys.stderr = _make_lossy(sys.stderr)


def _make_lossy(stream: TextIO) -> TextIO:
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # closed when the process was started, or replaced by a test
        return stream
    file = _LossyFile(number, "w", closefd=False)
    return io.TextIOWrapper(file, stream.encoding, "backslashreplace", line_buffering=True, write_through=True)
