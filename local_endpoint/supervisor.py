"""Keeps worker processes running, as many as the owner wants: one that worked and left is replaced."""

import contextlib
import sys
import threading
import time
from pathlib import Path

from local_endpoint.app import LocalEndpoint
from local_endpoint.worker_process import LocalWorker

RESTART_PAUSE_S = 1.0
CHECK_S = 0.2
GRACE_S = 3.0


def tell(text: str) -> None:
    """Prints a line to whoever started the endpoint."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, flush=True)


class Supervisor:
    """The workers of one endpoint, each followed by a thread; `ending` is set to end them all.

    One that never asked for a job would not do so when started again: it ends the others, too.
    """

    def __init__(self, endpoint: LocalEndpoint, script: Path, count: int, ending: threading.Event) -> None:
        self._endpoint = endpoint
        self._script = script
        self._count = count
        self._ending = ending
        self._code = 0

    def run(self) -> int:
        """Keeps the workers running until they shall end; the exit code of one that could not even start, or 0."""
        threads = [threading.Thread(target=self._keep, args=(self._name(number),)) for number in range(self._count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._code

    def _name(self, number: int) -> str:
        return "the worker" if self._count == 1 else f"worker {number + 1} of {self._count}"

    def _keep(self, name: str) -> None:
        while not self._ending.is_set():
            try:
                worker = LocalWorker(self._endpoint, self._script)
            except OSError as error:
                return self._end(1, f"{name} cannot be started: {error.strerror}")
            worked = self._follow(worker, name)
            if self._ending.is_set():
                return
            code = worker.wait()
            if not worked:
                return self._end(code or 1, f"{name} ended with code {code} before it asked for a job")
            tell(f"{name} ended with code {code}; starting another")
            self._ending.wait(RESTART_PAUSE_S)

    def _end(self, code: int, reason: str) -> None:
        print(reason, file=sys.stderr)
        self._code = self._code or code
        self._ending.set()

    def _follow(self, worker: LocalWorker, name: str) -> bool:
        """Stays with a worker to its end, or brings that about; says whether it has asked for a job.

        One that the endpoint has given up, because it was silent with a job in hand, is killed, as its machine would
        be.
        """
        started, ready = time.monotonic(), False
        while not worker.ended:
            if self._ending.wait(CHECK_S):
                worker.stop(GRACE_S)
            elif not ready and self._has_asked(worker):
                ready = True
                tell(f"{name} is ready: it asks for jobs after {time.monotonic() - started:.1f} s")
            elif ready and not worker.ended and worker.id not in self._endpoint.queue.workers:
                tell(f"{name} has been silent for too long with a job in hand, which goes back into the queue")
                worker.kill()
        return ready or self._has_asked(worker)

    def _has_asked(self, worker: LocalWorker) -> bool:
        return bool(self._endpoint.events.of("poll", worker_id=worker.id))
