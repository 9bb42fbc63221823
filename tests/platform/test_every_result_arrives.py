"""However soon the platform closes connections that are idle, the result of a job arrives: the loop that holds the
connection is free while the job is drawn, and sees that it was closed.

All other tests with a platform have results arrive that keeps connections for longer than a job takes.
"""

from typing import Any

KEEP_ALIVE_S = 1
SHORT, LONG = {"steps": 3}, {"steps": 400}  # about a tenth of a second, and far longer than connections are kept


def test_of_short_and_long_jobs_in_turn(start_platform: Any, open_worker: Any, tiny_sd1: str) -> None:
    platform = start_platform(keep_alive_s=KEEP_ALIVE_S)
    with open_worker(platform, env={"MODEL_NAME": tiny_sd1, "MAX_STEPS": "5000"}):
        for fields in (SHORT, LONG, SHORT):
            answer = platform.ask({"prompt": "a star", "width": 64, "height": 64, **fields})
            assert answer["status"] == "COMPLETED", answer
