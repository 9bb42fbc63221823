"""A real worker process under the endpoint's eyes: started as in its container, watched, and cleaned up after.

The script is the container's PID 1. When it ends, a container ends whatever is left in it; so does this. The process
group stands for the container, hence only Unix; it does not outlive the process that started it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from local_endpoint.app import LocalEndpoint

LINGER_S = 1.0  # how long a worker's children may take to follow it before they count as orphans
KILL_S = 5.0  # how long the kernel may take to end what was killed
# Kills a process group when its input is closed: when whoever started both has ended, however that was.
_KEEPER = 'read word; kill -s KILL -- "-$0"'


def worker_environment(endpoint: LocalEndpoint, worker_id: str, ping_interval_ms: int) -> dict[str, str]:
    """The variables that RunPod sets in a worker's container, pointing at this endpoint."""
    no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY", os.environ.get("no_proxy")), endpoint.config.host)))
    key = endpoint.config.worker_key
    query = f"gpu=TEST&key={key}"  # here, too, for the SDK may know another from ~/.runpod/config.toml
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{endpoint.url}/job-take/$ID?{query}",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{endpoint.url}/job-done/$RUNPOD_POD_ID/$ID?{query}",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{endpoint.url}/job-stream/$RUNPOD_POD_ID/$ID?{query}",
        "RUNPOD_WEBHOOK_PING": f"{endpoint.url}/ping/$RUNPOD_POD_ID?{query}",
        "RUNPOD_PING_INTERVAL": str(ping_interval_ms),
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint.config.endpoint_id,
        "RUNPOD_AI_API_KEY": key,
        "RUNPOD_LOG_LEVEL": "INFO",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,  # the heartbeat would send its pings to a proxy
        "no_proxy": no_proxy,
    }


class LocalWorker:
    """One worker process, running as soon as the object exists. As a context manager it is killed at the end.

    `env` is added to this process's own environment and the platform's; None as a value takes a variable away.
    Output goes to `log_path`, both streams in one file, or to this process's terminal.
    """

    def __init__(
        self,
        endpoint: LocalEndpoint,
        script: str | Path = "handler.py",
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | Path | None = None,
        log_path: Path | None = None,
        ping_interval_ms: int = 10_000,
    ) -> None:
        self.id = f"worker-{uuid.uuid4().hex[:8]}"
        self.endpoint = endpoint
        self.log_path = log_path
        self.orphans: list[str] = []  # children that had to be killed after the worker itself had ended
        variables = os.environ | worker_environment(endpoint, self.id, ping_interval_ms) | dict(env or {})
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log_path.open("wb")) if log_path else None
            self._process = subprocess.Popen(
                [sys.executable, str(script), *args],
                env={name: value for name, value in variables.items() if value is not None},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.endpoint.worker_started(self.id)
        self._keeper = _start_keeper(self.pid)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name=f"watch {self.id}", daemon=True).start()

    def wait_ready(self, timeout: float = 120.0) -> Self:
        """Waits until the worker asks for its first job. Raises RuntimeError with its log when it does not."""
        try:
            self.endpoint.events.wait("poll", worker_id=self.id, timeout=timeout, unless=self._ended.is_set)
        except TimeoutError:
            code = self._process.poll()
            state = "still starting" if code is None else f"exit code {code}"
            raise RuntimeError(f"worker never asked for a job ({state}):\n{self.log()[-4000:]}") from None
        return self

    def wait(self, timeout: float = 60.0) -> int:
        """Waits for the worker's end and that of its children. Returns the exit code, -N for signal N.

        Raises TimeoutError with the end of its log when it goes on living.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"worker {self.id} still runs after {timeout} s:\n{self.log()[-4000:]}")
        return int(self._process.returncode)

    @property
    def running(self) -> bool:
        """Whether the worker's main process lives."""
        return self._process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether the worker and all that it has started are gone."""
        return self._ended.is_set()

    def send(self, signal_number: int) -> None:
        """Sends a signal to the main process alone, as a container's stop does."""
        self._process.send_signal(signal_number)

    def stop(self, grace_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `grace_s` seconds. Returns the exit code."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            return self.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """Ends the worker and everything it has started, at once. Returns the exit code."""
        if not self._ended.is_set():
            _kill_group(self.pid)
        return self.wait()

    def children(self) -> list[psutil.Process]:
        """All living descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self.pid).children(recursive=True))
        return []

    def log(self) -> str:
        """Everything the worker has written so far, when it writes to a file."""
        return self.log_path.read_text(errors="replace") if self.log_path else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _watch(self) -> None:
        code = self._process.wait()
        self.orphans = [_describe(process) for process in _wait_for_group(self.pid, LINGER_S)]
        _kill_group(self.pid)
        _wait_for_group(self.pid, KILL_S)
        self._keeper.kill()
        self._keeper.wait()
        self.endpoint.worker_gone(self.id, f"its process ended with code {code}")
        self._ended.set()


def _start_keeper(group_id: int) -> "subprocess.Popen[bytes]":
    command = ["/bin/sh", "-c", _KEEPER, str(group_id)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _group(group_id: int) -> list[psutil.Process]:
    """The living members of a process group; an ended one that nobody has reaped yet is not alive."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(process.pid) == group_id and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _wait_for_group(group_id: int, timeout: float) -> list[psutil.Process]:
    """Waits until nothing of the group lives, and returns what still does after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (left := _group(group_id)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _kill_group(group_id: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group_id, signal.SIGKILL)


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())}"
    return str(process.pid)
