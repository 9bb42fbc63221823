"""Each kind of case, started and ready to be asked: a server, Celery, a queue's consumer, this repository's worker."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.cuda_and_fork.harness import clients
from examples.cuda_and_fork.harness.cases import WORKER, Case
from examples.cuda_and_fork.harness.running import Note, Running, free_port, running
from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker

ROOT = Path(__file__).resolve().parents[3]
LOADED = '"message": "loaded '  # a line of the worker's log


@dataclass(frozen=True)
class Served:
    """A program that runs: its process, how to ask it once, and what it tells afterwards."""

    pid: int
    ask: Callable[[], str]
    notes: Callable[[], list[Note]]
    last_error: Callable[[], str]


Serve = Callable[[Case, Path, Mapping[str, str], Path], contextlib.AbstractContextManager[Served]]


@contextlib.contextmanager
def serve_http(case: Case, python: Path, env: Mapping[str, str], folder: Path) -> Iterator[Served]:
    """A server that is asked on its port."""
    with start(case, python, env, folder) as program:
        yield describe(program, lambda: clients.ask_http(program))


@contextlib.contextmanager
def serve_celery(case: Case, python: Path, env: Mapping[str, str], folder: Path) -> Iterator[Served]:
    """A Celery worker whose broker is a folder."""
    env = {**env, "CELERY_FOLDER": str(folder / "celery")}
    with start(case, python, env, folder) as program:
        yield describe(program, lambda: clients.ask_celery(python, os.environ | env))


@contextlib.contextmanager
def serve_queue(case: Case, python: Path, env: Mapping[str, str], folder: Path) -> Iterator[Served]:
    """A queue and its consumer."""
    with (
        clients.local_queues(python, folder / "queue") as queues,
        start(case, python, {**env, **queues.env}, folder) as program,
    ):
        yield describe(program, queues.ask)


@contextlib.contextmanager
def serve_worker(case: Case, python: Path, env: Mapping[str, str], folder: Path) -> Iterator[Served]:
    """handler.py on an emulated endpoint. It keeps no notes; its log tells of loads and of the device."""
    folder.mkdir(parents=True)
    with (
        LocalEndpoint(EndpointConfig(hold_s=1.0)) as endpoint,
        LocalWorker(endpoint, ROOT / WORKER, env=env, cwd=ROOT, log_path=folder / "output") as worker,
    ):
        worker.wait_ready()
        yield Served(worker.pid, lambda: ask_worker(endpoint), lambda: read_log(worker), str)


SERVE: dict[str, Serve] = {"http": serve_http, "celery": serve_celery, "sqs": serve_queue, "runpod": serve_worker}


def start(case: Case, python: Path, env: Mapping[str, str], folder: Path) -> contextlib.AbstractContextManager[Running]:
    """The case's program, with a port."""
    port = free_port()
    return running(case.command(python, port), port, folder / "program", {**env, **case.variables})


def describe(program: Running, ask: Callable[[], str]) -> Served:
    """A program of programs/, which keeps notes."""
    return Served(program.process.pid, ask, program.notes, program.last_error)


def ask_worker(endpoint: LocalEndpoint) -> str:
    """A job through the endpoint's queue."""
    job = {"input": {"prompt": clients.PROMPT, "steps": 4}}
    answer = clients.post(f"{endpoint.url}/runsync", job, endpoint.config.api_key)
    if answer["status"] != "COMPLETED":
        return clients.ERROR
    return clients.tell({"image": answer["output"]["images"][0].partition(",")[2]})


def read_log(worker: LocalWorker) -> list[Note]:
    """A load for each line that tells of one. Only the main process writes this log: its child imports no worker."""
    return [*[Note(worker.pid, "loaded", "")] * worker.log().count(LOADED), Note(worker.pid, "drew", "")]
