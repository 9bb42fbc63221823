"""Nothing waits without end: for a hub or a storage that brings hardly anything, a pause that it asks for, a lock."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _shared_blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.helpers.civitai_site import Published, Site, serving
from tests.helpers.local_hub import COMMIT, REPOSITORY
from worker.errors import JobTimeoutError, ModelError
from worker.models import file_download as our_download
from worker.models import hub, hub_transfers, pace, shared_fetches
from worker.models.civitai import fetch_place
from worker.models.hub_transfers import bound_transfers
from worker.models.pace import MIN_BYTES, WINDOW_S, Pace, TooSlowError
from worker.models.shared_fetches import SharedFetches
from worker.settings import Settings
from worker.waiting import LeavableCalls, TooManyLeftError

BODY = save({"weight": np.arange(60_000, dtype=np.float32)})
SOON_S = 20.0


def _stop() -> None:
    raise JobTimeoutError("over")


def _go_on() -> None:
    pass


# How slowly a file may come


@given(st.lists(st.tuples(st.floats(0.01, 200), st.integers(0, 2 * MIN_BYTES)), max_size=30))
def test_what_comes_is_given_up_if_a_while_brought_too_little(pieces: list[tuple[float, int]]) -> None:
    """And only then; a while begins where the last one has ended well."""
    with pytest.MonkeyPatch.context() as patch:
        now = [0.0]
        patch.setattr(pace.CLOCK, "running_time", lambda: now[0])
        watched, since, came, slow = Pace(), 0.0, 0, False
        for seconds, count in pieces:
            now[0] += seconds
            came += count
            over = now[0] - since >= WINDOW_S
            slow = over and came < MIN_BYTES
            try:
                watched.note(count)
            except TooSlowError:
                assert slow
                return
            assert not slow
            since, came = (now[0], 0) if over else (since, came)


# The hub


class _Hub(ThreadingHTTPServer):
    """Answers as `send` does whatever is not a question for a file's headers."""

    daemon_threads = True
    send: Callable[[BaseHTTPRequestHandler], None]
    head: Callable[[BaseHTTPRequestHandler], None] | None = None


class _Asked(BaseHTTPRequestHandler):
    server: _Hub

    def do_HEAD(self) -> None:
        if self.server.head is not None:
            return self.server.head(self)
        self.send_response(200)
        for name, value in {"ETag": '"abc"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(BODY))}.items():
            self.send_header(name, value)
        return self.end_headers()

    def do_GET(self) -> None:
        self.server.send(self)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _drip(before: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(before)
        for _ in range(1_000):
            request.wfile.write(b"x")
            time.sleep(0.02)

    return send


def _ask_for_a_day(request: BaseHTTPRequestHandler) -> None:
    request.send_response(429)
    request.send_header("Retry-After", "86400")
    request.send_header("RateLimit", '"api";r=0;t=86400')
    request.send_header("Content-Length", "0")
    request.end_headers()


def _break_off(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 240000\r\n\r\nx")
    request.close_connection = True


@pytest.fixture
def a_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Hub]:
    """Asked with short times; nobody really sleeps."""
    bound_transfers()
    server = _Hub(("127.0.0.1", 0), _Asked)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_transfers, "READ_S", 0.2)
    monkeypatch.setattr(pace, "WINDOW_S", 0.15)
    server.slept = []  # type: ignore[attr-defined]
    monkeypatch.setattr(time, "sleep", _shortened(server.slept))  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    server.server_close()


def _shortened(slept: list[float]) -> Callable[[float], None]:
    sleep = time.sleep

    def shorter(seconds: float) -> None:
        slept.append(seconds)
        sleep(min(seconds, 0.02))

    return shorter


def _told(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        hub.download(REPOSITORY, "style.safetensors", {"revision": None, "token": None, "cache_dir": folder})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "send",
    [_drip(b"HTTP/1.1 200 OK\r\nContent-Length: 240000\r\n\r\n"), _drip(b"HTTP/1.1 200 OK\r\nX-Slow: "), _break_off],
    ids=["a body that drips", "headers that drip", "a connection that breaks off each time"],
)
def test_a_hub_that_brings_hardly_anything_is_named(send: Any, a_hub: _Hub, tmp_path: Path) -> None:
    a_hub.send = send
    assert f"{REPOSITORY} cannot be fetched from the hub: " in _told(tmp_path)
    assert not list(tmp_path.rglob("*.incomplete")), "and nothing is left of it"


def test_headers_of_a_file_that_drip_are_no_wait_either(a_hub: _Hub, tmp_path: Path) -> None:
    a_hub.head = _drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    assert "the hub cannot be reached" in _told(tmp_path)


def test_a_pause_that_the_hub_asks_for_is_no_longer_than_it_may_be(a_hub: _Hub, tmp_path: Path) -> None:
    a_hub.send = _ask_for_a_day
    _told(tmp_path)
    assert 200 < max(a_hub.slept) <= hub_transfers.MAX_PAUSE_S + 1  # type: ignore[attr-defined]


def test_a_hub_that_lists_nothing_is_not_waited_for(a_hub: _Hub) -> None:
    over = threading.Event()
    a_hub.head, a_hub.send = _missing, lambda request: over.wait(SOON_S)
    fetch = hub.make_lora_fetcher(Settings())
    with pytest.raises(ModelError, match="cannot be listed by the hub"):
        fetch(REPOSITORY)
    over.set()


def _missing(request: BaseHTTPRequestHandler) -> None:
    request.send_response(404)
    for name, value in {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT, "Content-Length": "0"}.items():
        request.send_header(name, value)
    request.end_headers()


# Another's lock


@contextmanager
def _wait_for(lock: Path) -> Iterator[Any]:
    with file_download.WeakFileLock(lock) as held:  # type: ignore[attr-defined]
        yield held


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a file of the hub, where huggingface_hub puts it."""
    bound_transfers()
    monkeypatch.setattr(hub_transfers, "IDLE_S", 0.6)
    monkeypatch.setattr(hub_transfers, "POLL_S", 0.02)
    for folder in (".locks/models--org--name", "models--org--name/blobs"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path / ".locks" / "models--org--name" / "abc.lock"


def test_a_lock_is_waited_for_while_its_holder_brings_something(lock: Path) -> None:
    growing = lock.parents[2] / "models--org--name" / "blobs" / "abc.1234.incomplete"
    released = threading.Event()

    def hold() -> None:
        with _wait_for(lock):
            for _ in range(8):  # longer than it may be idle
                growing.open("ab").write(b"more")
                time.sleep(0.15)
            released.set()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(hold)
        while not growing.exists():
            time.sleep(0.01)
        with _wait_for(lock) as held:
            assert held is not None and released.is_set()


def test_a_lock_whose_holder_is_idle_is_passed_over(lock: Path) -> None:
    over = threading.Event()

    def hold() -> None:
        with _wait_for(lock):
            over.wait(SOON_S)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(hold)
        while not lock.exists():
            time.sleep(0.01)
        with _wait_for(lock) as held:
            assert held is None
        over.set()
    with _wait_for(lock) as held:
        assert held is not None, "and it is one again for whoever comes later"


def test_a_lock_that_is_only_a_file_does_not_outlive_its_holder(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a volume that knows no other; its holder was killed on another machine."""
    monkeypatch.setattr(hub_transfers, "FileLock", _Unknown)
    lock.write_text("4711\nanother-machine\n")
    with _wait_for(lock) as held:
        assert held is None


class _Unknown:
    def __init__(self, *_: object, **__: object) -> None:
        """As filelock says it."""

    def acquire(self, timeout: float) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")


def test_a_lock_of_what_caches_share_is_waited_for_as_long_and_no_longer(lock: Path) -> None:
    """After which huggingface_hub fetches the file as if nothing were shared."""
    over = threading.Event()

    def hold() -> None:
        with _shared_blobs._shared_blob_lock(lock):
            over.wait(SOON_S)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(hold)
        while not list(lock.parent.iterdir()):
            time.sleep(0.01)
        time.sleep(0.1)
        with pytest.raises(OSError, match="could not be acquired"), _shared_blobs._shared_blob_lock(lock):
            pass
        over.set()


# Civitai


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with serving(Site({1: [Published("a.safetensors", BODY)]}), tmp_path / "civitai", monkeypatch) as running:
        yield running


def _refusal() -> str:
    with pytest.raises(ModelError) as caught:
        fetch_place("https://civitai.com/api/download/models/1", Settings())
    return str(caught.value)


def test_a_storage_that_drips_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WINDOW_S", 0.2)
    site.piece = 1
    assert "civitai.com: a.safetensors cannot be fetched: no more than " in _refusal()


def test_a_storage_that_breaks_off_after_each_byte_is_named(site: Site) -> None:
    site.break_after = [1] * 1_000
    assert f", {our_download.MAX_FAILURES} times" in _refusal()


# Fetches that jobs share


def test_all_who_want_a_file_share_one_fetch_and_whoever_leaves_leaves_it_running() -> None:
    begun, over, asked = threading.Event(), threading.Event(), []

    def fetch(place: str) -> Path:
        asked.append(place)
        begun.set()
        over.wait(SOON_S)
        return Path(place)

    shared = SharedFetches(fetch)
    with pytest.raises(JobTimeoutError):
        shared.get("a", _stop)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(shared.get, "a", _go_on) for _ in range(4)]
        assert begun.wait(SOON_S)
        over.set()
        assert {one.result(SOON_S) for one in waiting} == {Path("a")}
    assert asked == ["a"]


def test_a_fetch_that_failed_is_tried_again_by_the_next() -> None:
    answers = iter([ModelError("the hub has a bad day"), Path("a")])

    def fetch(_: str) -> Path:
        if isinstance(answer := next(answers), ModelError):
            raise answer
        return answer

    shared = SharedFetches(fetch)
    with pytest.raises(ModelError, match="bad day"):
        shared.get("a", _go_on)
    assert shared.get("a", _go_on) == Path("a")


@settings(max_examples=4, deadline=None)
@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=9, max_size=16, unique=True))
def test_so_many_may_be_left_running_and_the_next_has_its_own_time(places: list[str]) -> None:
    over, running, most = threading.Event(), itertools.count(1), [0]

    def fetch(place: str) -> Path:
        most[0] = next(running)
        over.wait(SOON_S)
        return Path(place)

    shared = SharedFetches(fetch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_fetches, "CHECK_S", 0.001)
        patch.setattr("worker.waiting.CHECK_S", 0.001)
        for place in places:
            with pytest.raises(JobTimeoutError):
                shared.get(place, _stop)
    assert most[0] == shared_fetches.MAX_FETCHES
    over.set()
    assert shared.get(places[-1], _go_on) == Path(places[-1]), "and has room once others have ended"


def test_calls_that_were_left_are_counted_until_they_end() -> None:
    over = threading.Event()
    calls = LeavableCalls("test", max_left=2)
    for _ in range(2):
        with pytest.raises(JobTimeoutError):
            calls.call(lambda: over.wait(SOON_S), _stop)
    with pytest.raises(TooManyLeftError, match="2 earlier ones"):
        calls.call(lambda: json.dumps(1), _go_on)
    over.set()
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        try:
            assert calls.call(lambda: json.dumps(1), _go_on) == "1"
            return
        except TooManyLeftError:
            time.sleep(0.01)
    raise AssertionError("they have ended, and still count")
