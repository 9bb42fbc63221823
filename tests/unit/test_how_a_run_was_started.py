"""Whether a run is the local test, an API or the platform's is told by how the SDK takes the process's own start, which
is asked here itself; never by what a job says."""

import asyncio
import sys
from typing import Any

import pytest
import runpod
from runpod.serverless.modules import rp_fastapi, rp_local

from worker.environment import on_platform
from worker.runtime.local_test import is_local_test

JOB = '{"input": {"prompt": "a star"}}'
ARGUMENTS = [
    [],
    ["--test_input", JOB],
    [f"--test_input={JOB}"],
    ["--test_in", JOB],
    [f"--t={JOB}"],
    ["--rp_serve_api"],
    ["--rp_serve"],
    ["--rp_s"],
    ["--rp_serve_api", "--test_input", JOB],
    ["--rp_api_port", "8001"],
    ["--rp_log_level", "INFO"],
    ["--rp_debugger"],
    ["something", "--else"],
]
ENVIRONMENTS = [
    {},
    {"RUNPOD_WEBHOOK_GET_JOB": "http://host/job-take/$ID?gpu=TEST"},
    {"RUNPOD_WEBHOOK_GET_JOB": ""},
    {"RUNPOD_REALTIME_PORT": "8080"},
    {"RUNPOD_REALTIME_PORT": "0", "RUNPOD_WEBHOOK_GET_JOB": "http://host/job-take/$ID?gpu=TEST"},
    {"RUNPOD_REALTIME_PORT": "8080", "RUNPOD_WEBHOOK_GET_JOB": "http://host/job-take/$ID?gpu=TEST"},
]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the SDK has started; nothing of it runs."""
    started: list[str] = []

    async def run_local(_: Any) -> None:
        started.append("local test")

    class WorkerAPI:
        def __init__(self, _: Any) -> None:
            started.append("API")

        def start_uvicorn(self, **_: Any) -> None:
            pass

    monkeypatch.setattr(rp_local, "run_local", run_local)
    monkeypatch.setattr(rp_fastapi, "WorkerAPI", WorkerAPI)
    monkeypatch.setattr("runpod.serverless.worker.run_worker", lambda _: started.append("platform"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return started


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_it_is_what_the_sdk_starts(
    arguments: list[str], environment: dict[str, str], starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUNPOD_WEBHOOK_GET_JOB", "RUNPOD_REALTIME_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["handler.py", *arguments])

    told = "local test" if is_local_test() else "platform" if on_platform() else "API"
    runpod.serverless.start({"handler": lambda job: job})
    asyncio.set_event_loop(None)

    assert [told] == starts
