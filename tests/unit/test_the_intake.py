"""How jobs are fetched: at once as long as requests wait or bring something, slowly when they come back at once and
empty; nothing once it is closed; and nothing that has come is thrown away."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runpod.serverless.modules.worker_state import JobsProgress
from yarl import URL

from tests.helpers.fuzzing import examples
from worker.runtime import intake as intake_module
from worker.runtime.intake import EMPTY_REQUEST_S, FREE_EMPTY_REQUESTS, Intake, Jobs

JOB = {"id": "a-job", "input": {}}
SESSION = SimpleNamespace(headers={})


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 30))  # type: ignore[arg-type]


class Source:
    """A platform in an await: each request takes so long and brings this, or raises it."""

    def __init__(self, seconds: float = 0.0, brings: Jobs | Exception = None) -> None:
        self.seconds, self.brings = seconds, brings
        self.requests = self.ended = 0
        self.stops: list[str] = []
        self.running: dict[str, Any] = {}

    def intake(self) -> Intake:
        return Intake(self.fetch, self.fetch_stops, self.running)

    async def fetch_stops(self, _: Any) -> list[str]:
        return self.stops

    async def fetch(self, _: Any, __: int) -> Jobs:
        self.requests += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended += 1
            raise
        if isinstance(self.brings, Exception):
            raise self.brings
        return self.brings


async def ask_for(intake: Intake, seconds: float) -> None:
    """Fetch again and again, as the SDK does, whatever comes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError):
            await intake.fetch(SESSION, 1)
        await asyncio.sleep(0)


@pytest.mark.parametrize("brings", [None, [], OSError("500")])
def test_a_platform_in_trouble_is_asked_less_and_less(brings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MAX_PAUSE_S", 0.3)
    source = Source(brings=brings)

    async def scene() -> None:
        await ask_for(source.intake(), 1.5)

    run(scene)
    assert FREE_EMPTY_REQUESTS < source.requests <= FREE_EMPTY_REQUESTS + 1 + 1.5 / 0.1


def test_half_a_day_of_trouble_does_not_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MAX_PAUSE_S", 0.0)
    source = Source()

    async def scene() -> None:
        intake = source.intake()
        for _ in range(20_000):
            await intake.fetch(SESSION, 1)

    run(scene)
    assert source.requests == 20_000


@pytest.mark.parametrize("source", [Source(brings=[JOB]), Source(2 * EMPTY_REQUEST_S)], ids=["jobs", "waiting"])
def test_requests_that_bring_jobs_or_wait_for_them_are_never_delayed(source: Source) -> None:
    async def scene() -> None:
        intake, started = source.intake(), time.monotonic()
        for _ in range(20):
            await intake.fetch(SESSION, 1)
        assert time.monotonic() - started < 20 * source.seconds + 2

    run(scene)


def test_the_pace_is_back_with_the_platform() -> None:
    source = Source()

    async def scene() -> None:
        intake = source.intake()
        for _ in range(FREE_EMPTY_REQUESTS + 3):
            await intake.fetch(SESSION, 1)
        source.brings = [JOB]
        await intake.fetch(SESSION, 1)
        started = time.monotonic()
        for _ in range(20):
            assert await intake.fetch(SESSION, 1) == [JOB]
        assert time.monotonic() - started < 1

    run(scene)


def test_closing_ends_the_open_request_and_there_is_no_other() -> None:
    source = Source(60, [JOB])

    async def scene() -> None:
        intake = source.intake()
        waiting = asyncio.ensure_future(intake.fetch(SESSION, 1))
        await asyncio.sleep(0.05)
        intake.close()
        assert await waiting is None
        assert (source.requests, source.ended) == (1, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(intake.fetch(SESSION, 1), 0.2)
        assert source.requests == 1

    run(scene)


def test_closing_does_not_wait_for_a_pause() -> None:
    source = Source()

    async def scene() -> None:
        intake = source.intake()
        asking = asyncio.ensure_future(ask_for(intake, 60))
        await asyncio.sleep(0.5)
        intake.close()
        before = source.requests
        await asyncio.sleep(0.2)
        assert source.requests == before
        asking.cancel()

    run(scene)


def test_what_has_come_when_its_caller_gave_up_is_handed_out_by_the_next_call() -> None:
    """As after a freeze of the process: the SDK's timer runs out before the answer is read."""
    source = Source(0.3, [JOB])

    async def scene() -> None:
        intake = source.intake()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(intake.fetch(SESSION, 1), 0.1)
        assert await intake.fetch(SESSION, 1) == [JOB]
        assert source.requests == 1

    run(scene)


def test_a_request_that_brings_nothing_even_then_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has silently died would be waited for as long as the process lives."""
    monkeypatch.setattr(intake_module, "UNREAD_S", 0.1)
    source = Source(60, [JOB])

    async def scene() -> None:
        intake = source.intake()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(intake.fetch(SESSION, 1), 0.1)
        assert await intake.fetch(SESSION, 1) is None
        source.seconds = 0.0
        assert await intake.fetch(SESSION, 1) == [JOB]
        assert (source.requests, source.ended) == (2, 1)

    run(scene)


BAD: list[Any] = [
    {"input": {}},
    {"id": "", "input": {}},
    {"id": True, "input": {}},
    {"id": "no-input"},
    "a text",
    None,
    [],
]


def test_what_is_no_job_is_left_out() -> None:
    """The SDK would end the process for it, with every job in hand; and of a job that comes twice, lose one result."""
    source = Source(brings=[*BAD, JOB, JOB])

    async def scene() -> None:
        assert await source.intake().fetch(SESSION, 9) == [JOB]

    run(scene)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
SENT = JSON | st.fixed_dictionaries(
    {"id": JSON | st.text(min_size=1), "input": JSON},
    optional={"s3Config": JSON, "webhook": JSON, "self": JSON, "__class__": JSON, "__dict__": JSON, "batchId": JSON},
)


@examples(200)
@given(st.lists(SENT, max_size=5))
def test_whatever_is_sent_what_comes_through_is_a_job_that_can_be_answered(sent: list[Any]) -> None:
    """Its id stands in an address, in a header and in the log; the SDK keeps it as an object of its own."""
    source = Source(brings=sent)

    async def scene() -> list[dict[str, Any]]:
        return await source.intake().fetch(SESSION, 9) or []

    jobs = asyncio.run(scene())
    for job in jobs:
        assert re.fullmatch(r"[!-~]+", job["id"]) and not re.search(r"[/?#\s]", job["id"])
        assert "/../" not in str(URL(f"http://host/job-done/worker/{job['id']}/end"))
        assert job.keys() <= {"id", "input", "s3Config"}
        JobsProgress().add(job)
        JobsProgress().remove(job)
    assert len({job["id"] for job in jobs}) == len(jobs)
    plain = [one for one in sent if isinstance(one, dict) and re.fullmatch("[a-z0-9-]+", str(one.get("id", "")))]
    assert {job["id"] for job in jobs} >= {one["id"] for one in plain if isinstance(one["id"], str) and "input" in one}


def test_the_id_of_the_last_job_is_sent_with_no_request_for_jobs() -> None:
    """The SDK leaves it in the session, where one that a host refuses would keep this worker from hearing again."""
    asked: list[dict[str, str]] = []
    source = Source(brings=[JOB])
    session = SimpleNamespace(headers={"X-Request-ID": "x" * 10_000, "Authorization": "key"})

    async def note(session: Any, *_: Any) -> Any:
        asked.append(dict(session.headers))
        return []

    async def scene() -> None:
        intake = Intake(note, note, source.running)
        await intake.fetch(session, 1)
        session.headers["X-Request-ID"] = "x"
        await intake.fetch_stops(session)

    run(scene)
    assert asked == [{"Authorization": "key"}] * 2


def test_a_stop_is_for_the_job_of_that_id_however_it_is_spelled() -> None:
    source = Source(brings=[{"id": "a b/ö\n", "input": {}}])
    source.stops = ["a b/ö\n", "", "\ud800"]

    async def scene() -> None:
        intake = source.intake()
        (job,) = await intake.fetch(SESSION, 1) or ()
        source.running[job["id"]] = object()
        assert await intake.fetch_stops(SESSION) == [job["id"]]

    run(scene)


def test_a_job_in_hand_is_not_taken_again() -> None:
    """A frozen worker may be given up, and handed its own job once more."""
    source = Source(brings=[JOB, {"id": "another", "input": {}}])
    JobsProgress().add(JOB)
    try:

        async def scene() -> None:
            assert [job["id"] for job in await source.intake().fetch(SESSION, 2) or ()] == ["another"]

        run(scene)
    finally:
        JobsProgress().remove(JOB)


def test_a_stop_waits_for_the_job_that_it_is_for() -> None:
    source = Source()
    source.stops = ["a-job"]

    async def scene() -> None:
        stops = asyncio.ensure_future(source.intake().fetch_stops(SESSION))
        await asyncio.sleep(0.1)
        assert not stops.done()
        source.running["a-job"] = object()
        assert await asyncio.wait_for(stops, 0.2) == ["a-job"]

    run(scene)


def test_a_stop_for_a_job_that_is_over_keeps_no_other_waiting() -> None:
    source = Source()
    source.stops = ["over"]

    async def scene() -> None:
        assert await asyncio.wait_for(source.intake().fetch_stops(SESSION), 2) == ["over"]

    run(scene)
