"""A process that was frozen reads what came meanwhile before its timers run out, and counts the time that it ran."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.python_path import python_path
from worker.clock import LOOK_S, MIN_FREEZE_S, PATIENCE_S, Clock

ROOT = Path(__file__).parents[2]
FROZEN_S = MIN_FREEZE_S + 1.0
TIMEOUT_S = FROZEN_S - 0.1
# Waits for a line, and tells what it got and how long that took, with and without the time in which it was frozen.
WAITING = f"""
import asyncio, json, sys, time
from worker.clock import Clock

async def read():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.readline()
    for _ in range(5):  # as an answer of HTTP takes several turns of the loop to be read
        await asyncio.sleep(0)
    return (await reader.readline()).decode()

async def main():
    clock = Clock()
    clock.watch(asyncio.get_running_loop())
    reading = asyncio.create_task(read())
    started, ran = time.monotonic(), clock.running_time()
    print("waiting", flush=True)
    try:
        got = await asyncio.wait_for(reading, {TIMEOUT_S})
    except TimeoutError:
        got = None
    print(json.dumps([got, time.monotonic() - started, clock.running_time() - ran]), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A process that waits."""
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT)}
    command = [sys.executable, "-c", WAITING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


def _freeze(process: subprocess.Popen[str], sent: str) -> tuple[str | None, float, float]:
    """What a process tells to which this was sent while it was frozen."""
    assert process.stdin and process.stdout
    process.send_signal(signal.SIGSTOP)
    process.stdin.write(sent)
    process.stdin.flush()
    time.sleep(FROZEN_S)
    process.send_signal(signal.SIGCONT)
    got, took_s, ran_s = json.loads(process.stdout.readline())
    return got, took_s, ran_s


def test_what_came_meanwhile_is_read_although_its_time_is_over(process: subprocess.Popen[str]) -> None:
    got, took_s, ran_s = _freeze(process, "a line\nand another\n")

    assert got == "and another\n"
    assert took_s > FROZEN_S
    assert ran_s < took_s - MIN_FREEZE_S


def test_what_did_not_come_is_waited_for_no_longer_than_a_moment(process: subprocess.Popen[str]) -> None:
    got, took_s, _ = _freeze(process, "a line\n")

    assert got is None
    assert took_s < FROZEN_S + PATIENCE_S + 1.5 < FROZEN_S + TIMEOUT_S


def test_a_clock_that_nobody_watches_takes_no_gap_for_a_freeze() -> None:
    clock = Clock()
    wall, ran = time.monotonic(), clock.running_time()
    time.sleep(MIN_FREEZE_S + LOOK_S)

    assert clock.running_time() - ran >= MIN_FREEZE_S
    assert time.monotonic() - wall >= clock.running_time() - ran - 0.1
