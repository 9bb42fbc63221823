"""The time in which a process was frozen is not counted as time that it ran."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import worker.http
from tests.helpers.picture_sources import answer, corners, file_of, hosting
from tests.helpers.python_path import python_path
from worker.clock import CLOCK, LOOK_S, MIN_FREEZE_S, Clock
from worker.errors import UnusablePictureError
from worker.images.fetch import fetch

ROOT = Path(__file__).parents[2]
FROZEN_S = MIN_FREEZE_S + 1.0
# Tells, once it has read a line, how long that took, with and without the time in which it was frozen.
WAITING = """
import json, sys, time
from worker.clock import Clock

clock = Clock()
clock.watch()
started, ran = time.monotonic(), clock.running_time()
print("waiting", flush=True)
sys.stdin.readline()
print(json.dumps([time.monotonic() - started, clock.running_time() - ran]), flush=True)
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a line."""
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT)}
    command = [sys.executable, "-c", WAITING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


def test_a_freeze_is_no_time(process: subprocess.Popen[str]) -> None:
    assert process.stdin and process.stdout
    process.send_signal(signal.SIGSTOP)
    process.stdin.write("a line\n")
    process.stdin.flush()
    time.sleep(FROZEN_S)
    process.send_signal(signal.SIGCONT)
    took_s, ran_s = json.loads(process.stdout.readline())

    assert took_s > FROZEN_S
    assert ran_s < took_s - MIN_FREEZE_S


def test_a_process_that_only_waits_runs(process: subprocess.Popen[str]) -> None:
    assert process.stdin and process.stdout
    time.sleep(FROZEN_S)
    process.stdin.write("a line\n")
    process.stdin.flush()
    took_s, ran_s = json.loads(process.stdout.readline())

    assert abs(ran_s - took_s) < 0.1


def test_a_clock_that_nobody_watches_takes_no_gap_for_a_freeze() -> None:
    clock = Clock()
    ran = clock.running_time()
    time.sleep(MIN_FREEZE_S + LOOK_S)

    assert clock.running_time() - ran >= MIN_FREEZE_S


def test_a_picture_whose_host_has_hung_up_meanwhile_is_fetched_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the time for fetching it does not run meanwhile; without a freeze, a host is asked once."""
    whole, frozen_s = file_of(corners()), [30.0]

    def hang_up_first(request: BaseHTTPRequestHandler) -> None:
        if len(host.asked) % 2:
            monkeypatch.setattr(CLOCK, "_frozen_s", CLOCK._frozen_s + frozen_s[0])
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf")
        else:
            answer(whole)(request)

    monkeypatch.setattr(worker.http, "is_public", lambda ip: ip == "127.0.0.1")
    with hosting(hang_up_first) as host:
        assert fetch(host.url(), ["127.0.0.1"], 10**6, timeout_s=20.0) == whole
        frozen_s[0] = 0.0
        with pytest.raises(UnusablePictureError, match="the transfer failed"):
            fetch(host.url(), ["127.0.0.1"], 10**6, timeout_s=20.0)
    assert len(host.asked) == 3
