"""However soon the platform closes connections that are idle, the result of a job arrives: the loop that holds the
connection is free while the job is drawn, and sees that it was closed."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

PACED = Path(__file__).with_name("paced_worker.py")


@pytest.fixture(scope="module")
def platform(open_platform: Any, open_worker: Any, tiny_sd1: str) -> Iterator[Any]:
    """It can start again, at the same address, and a worker finds it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with open_platform(port=port) as platform, open_worker(platform, PACED, env={"MODEL_NAME": tiny_sd1}):
        yield platform


@pytest.mark.parametrize(("keep_alive_s", "longer_s"), [(1, 3), (5, 7), (75, 3)])
def test_of_short_and_long_jobs_in_turn(keep_alive_s: int, longer_s: int, platform: Any) -> None:
    platform.stop()
    platform.config = replace(platform.config, keep_alive_s=keep_alive_s)
    platform.start()

    for seconds in (0.1, longer_s, 0.1):
        answer = platform.ask({"prompt": f"draw {seconds}"})
        assert answer["status"] == "COMPLETED", answer
