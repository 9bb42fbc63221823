"""However soon the platform closes connections that are idle, the result of a job arrives: the loop that holds the
connection is free while the job is drawn, and sees that it was closed."""

from typing import Any

import pytest

SHORT, LONG = {"steps": 3}, {"steps": 500}  # about a tenth of a second, and several seconds


@pytest.mark.parametrize("keep_alive_s", [1, 5, 75])
def test_of_short_and_long_jobs_in_turn(
    keep_alive_s: int, start_platform: Any, open_worker: Any, tiny_sd1: str
) -> None:
    platform = start_platform(keep_alive_s=keep_alive_s)
    with open_worker(platform, env={"MODEL_NAME": tiny_sd1, "MAX_STEPS": "5000"}):
        for fields in (SHORT, LONG):
            answer = platform.ask({"prompt": "a star", "width": 64, "height": 64, **fields})
            assert answer["status"] == "COMPLETED", answer
