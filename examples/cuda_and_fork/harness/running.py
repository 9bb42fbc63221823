"""A program that has been started: its port, its notes, its output, and an end for all of its processes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.cuda_and_fork.harness.cases import PROGRAMS

MAX_START_S = 120.0
MAX_ANSWER_S = 120.0
NOTES = "CUDA_AND_FORK_NOTES"
DEVICE = "CUDA_AND_FORK_DEVICE"


@dataclass(frozen=True)
class Note:
    """What a process said of itself: it has loaded, and so initialised CUDA; it drew; it failed, with what text."""

    pid: int
    event: str
    text: str


@dataclass(frozen=True)
class Running:
    """A started program."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def notes(self) -> list[Note]:
        """What its processes have noted so far."""
        path = self.folder / "notes"
        return [Note(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def last_error(self) -> str:
        """The last line of its output that names an exception."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", (self.folder / "output").read_text(errors="replace"))
        found = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .*", text, re.MULTILINE)
        return str(found[-1]) if found else ""

    def wait_for_port(self) -> bool:
        """Whether somebody listens; False as soon as the program has ended. Raises TimeoutError."""
        deadline = time.monotonic() + MAX_START_S
        while self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.process.args!r} does not listen after {MAX_START_S:g} s; see {self.folder}")
            time.sleep(0.05)
        return False


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """Start a program of programs/; at the end it is killed with all that it has started. Output goes into `folder`."""
    folder.mkdir(parents=True)
    variables = {"PORT": str(port), NOTES: str(folder / "notes"), "PYTHONUNBUFFERED": "1", **env}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROGRAMS,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Running(process, port, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
