"""JOB_TIMEOUT_S, and a cancel, hold over everything that a job waits for; the next job is as ever."""

import asyncio
import http.server
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest

import worker.http
from tests.helpers.drawing import SMALL, hole, scene, uri
from tests.helpers.faults import a_worker, engine_of, run
from tests.helpers.picture_sources import drip, hosting
from tests.helpers.tiny_addons import Kits
from worker.engine.prompts.clip import ClipEncoder
from worker.images import load
from worker.output import bucket
from worker.runtime import job as jobs
from worker.runtime import loaded_model
from worker.runtime.worker import MAX_ABANDONED_JOBS, Worker

EARLY_S, LATE_S = 0.5, 2.0  # a job's time: what is drawn first needs some
LEAVE_S = 0.3
SOON_S = 10.0  # far less than anything here would wait
FOREVER_S = 120.0
JOB = {"delivery": "base64"}

Fields = dict[str, Any]


class Scene:
    """A worker, and how to hold up the next job.

    Attributes:
        begun: set once it is.
        over: to be set when it need not be any longer.
    """

    def __init__(self, worker: Worker, patch: pytest.MonkeyPatch) -> None:
        self.worker, self.patch = worker, patch
        self.begun, self.over = threading.Event(), threading.Event()

    def wait(self, seconds: float = FOREVER_S) -> None:
        """Take so long, which nothing can interrupt."""
        self.begun.set()
        self.over.wait(seconds)

    def slow(self, place: Any, name: str, seconds: float = FOREVER_S) -> None:
        """Have this function take so long at each call."""
        plain = getattr(place, name)

        def slowly(*given: Any, **named: Any) -> Any:
            self.wait(seconds)
            return plain(*given, **named)

        self.patch.setattr(place, name, slowly)

    def limit(self, seconds: float) -> None:
        """Give jobs so much time from now on."""
        settings = self.worker.model.settings.model_copy(update={"job_timeout_s": seconds})
        self.patch.setattr(self.worker.model, "settings", settings)


# What may hold a job up; each gives the fields of a job that it happens to.


@contextmanager
def a_host_that_drips(scene: Scene) -> Iterator[Fields]:
    """The picture, a byte at a time."""
    scene.patch.setattr(worker.http, "is_public", lambda ip: ip == "127.0.0.1")
    slow = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x")
    with hosting(lambda request: (scene.begun.set(), slow(request))[1]) as host:
        yield {"image": host.url()}


@contextmanager
def a_mask_that_decodes_slowly(scene: Scene) -> Iterator[Fields]:
    """In a codec, which nothing can interrupt."""
    scene.slow(load, "_decode")
    yield {"image": uri(a_picture()), "mask": uri(hole())}


@contextmanager
def a_hub_that_never_ends(scene: Scene) -> Iterator[Fields]:
    """In huggingface_hub, which nothing can interrupt."""
    scene.slow(engine_of(scene.worker).loras._files, "_fetch")
    yield {"lora": "plain"}


@contextmanager
def prompts_that_are_read_slowly(scene: Scene) -> Iterator[Fields]:
    """Some time each, in the thread that draws."""
    scene.slow(ClipEncoder, "windows", 0.15)
    yield {"prompt": [f"a red square {number}" for number in range(16)]}


@contextmanager
def a_job_before_it(scene: Scene) -> Iterator[Fields]:
    """That is in a step which takes for ever."""
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(scene.worker.model.batcher.run, scene.wait, scene.worker.model.replicas[0])
        yield {}
        scene.over.set()
        other.result()


@contextmanager
def a_file_that_is_encoded_slowly(scene: Scene) -> Iterator[Fields]:
    """By a codec."""
    scene.slow(loaded_model, "encode")
    yield {}
    scene.over.set()


@contextmanager
def a_bucket_that_drips(scene: Scene) -> Iterator[Fields]:
    """The owner's, which boto3 waits for; no read of its answer takes long."""
    scene.patch.setattr(bucket, "REMOVAL_TIMEOUT_S", 0.3)
    _Bucket.scene = scene
    yield {"delivery": "s3"}


class _Bucket(http.server.BaseHTTPRequestHandler):
    scene: Scene

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in itertools.count():
            self.wfile.write(b"x")
            self.scene.wait(0.05)
            if self.scene.over.is_set():
                return

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


HoldUp = Callable[[Scene], AbstractContextManager[Fields]]
# With how much time the job has, and what it is doing when that is over.
HOLD_UPS: dict[HoldUp, tuple[float, str]] = {
    a_host_that_drips: (EARLY_S, "reading the request"),
    a_mask_that_decodes_slowly: (EARLY_S, "reading the request"),
    a_hub_that_never_ends: (EARLY_S, "fetching its LoRAs"),
    prompts_that_are_read_slowly: (EARLY_S, "waiting for its first step"),
    a_job_before_it: (EARLY_S, "waiting for its first step"),
    a_file_that_is_encoded_slowly: (LATE_S, "encoding the pictures"),
    a_bucket_that_drips: (LATE_S, "delivering the pictures"),
}


def a_picture() -> Any:
    """To start from."""
    return scene()


@pytest.fixture(scope="module")
def loaded(kits: Kits) -> Iterator[tuple[Worker, list[str]]]:
    """A worker with a bucket that drips, and what it draws."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    keys = {"BUCKET_ACCESS_KEY_ID": "x", "BUCKET_SECRET_ACCESS_KEY": "x", "ALLOWED_IMAGE_HOSTS": "127.0.0.1"}
    url = f"http://127.0.0.1:{server.server_port}/pictures"
    with a_worker(**kits["sd1"].settings("loras"), **keys, BUCKET_ENDPOINT_URL=url) as worker:
        yield worker, run(worker, **JOB)["images"]
    server.shutdown()
    server.server_close()


@pytest.fixture
def stage(loaded: tuple[Worker, list[str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Whatever still waits afterwards goes on, and ends."""
    monkeypatch.setattr(jobs, "LEAVE_S", LEAVE_S)
    scene = Scene(loaded[0], monkeypatch)
    yield scene
    scene.over.set()


def _next_job(stage: Scene) -> list[str]:
    stage.patch.undo()
    images: list[str] = run(stage.worker, **JOB)["images"]
    return images


@pytest.mark.parametrize("hold_up", HOLD_UPS, ids=lambda one: one.__name__)
def test_a_job_whose_time_is_over_says_so_and_what_it_waited_for(
    hold_up: HoldUp, stage: Scene, loaded: tuple[Worker, list[str]]
) -> None:
    seconds, doing = HOLD_UPS[hold_up]
    with hold_up(stage) as fields:
        stage.limit(seconds)
        started = time.monotonic()
        answer = run(stage.worker, **{**JOB, **fields})
        assert time.monotonic() - started < SOON_S
        assert answer["error"] == f"JOB_TIMEOUT: stopped while {doing}: the job's time is over (JOB_TIMEOUT_S)"
    assert _next_job(stage) == loaded[1]


async def _cancel(stage: Scene, fields: Fields) -> float:
    """How long it takes until a job that is held up is heard no more of."""
    answer = asyncio.ensure_future(stage.worker.handle({"id": "unwanted", "input": {**SMALL, **JOB, **fields}}))
    await asyncio.to_thread(stage.begun.wait, SOON_S)
    answer.cancel()
    started = time.monotonic()
    with suppress(asyncio.CancelledError):
        await answer
    return time.monotonic() - started


@pytest.mark.parametrize("hold_up", HOLD_UPS, ids=lambda one: one.__name__)
def test_a_job_that_is_cancelled_meanwhile_keeps_nobody(
    hold_up: HoldUp, stage: Scene, loaded: tuple[Worker, list[str]]
) -> None:
    with hold_up(stage) as fields:
        assert asyncio.run(_cancel(stage, fields)) < SOON_S
    assert _next_job(stage) == loaded[1]


def test_what_is_stuck_keeps_no_thread_from_the_jobs_after_it(stage: Scene, loaded: tuple[Worker, list[str]]) -> None:
    """As many as may be left behind, and one more, which is answered all the same."""
    stage.limit(EARLY_S / 2)
    with a_mask_that_decodes_slowly(stage) as fields, ThreadPoolExecutor(12) as callers:
        many = [callers.submit(run, stage.worker, **fields) for _ in range(MAX_ABANDONED_JOBS + 2)]
        assert {one.result(SOON_S)["code"] for one in many} == {"JOB_TIMEOUT"}
        stage.over.set()
    assert _next_job(stage) == loaded[1]


def test_the_file_that_a_job_left_behind_is_there_for_the_next(stage: Scene) -> None:
    stage.limit(EARLY_S)
    asked: list[str] = []
    files = engine_of(stage.worker).loras._files
    fetch = files._fetch
    stage.patch.setattr(files, "_fetch", lambda place: (asked.append(place), fetch(place))[1])
    with a_hub_that_never_ends(stage):
        assert run(stage.worker, lora="wordy")["code"] == "JOB_TIMEOUT"
        stage.limit(SOON_S)
        threading.Timer(0.3, stage.over.set).start()
        assert "images" in run(stage.worker, **JOB, lora="wordy")
    assert len(asked) == 1


@pytest.mark.parametrize("jump_s", [-3600.0, 86_400.0], ids=["an hour back", "a day forward"])
def test_the_clock_on_the_wall_is_nobodys_time(jump_s: float, stage: Scene, loaded: tuple[Worker, list[str]]) -> None:
    stage.limit(SOON_S)
    told, calls = time.time, itertools.count()
    stage.patch.setattr(time, "time", lambda: told() + jump_s * (next(calls) % 2))
    assert run(stage.worker, **JOB)["images"] == loaded[1]

    stage.limit(EARLY_S)
    with a_hub_that_never_ends(stage) as fields:
        assert run(stage.worker, **fields)["code"] == "JOB_TIMEOUT"
