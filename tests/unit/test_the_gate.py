"""The pace at which the gate lets a worker ask for jobs: at once as long as takes wait or bring something, slowly when
they come back at once and empty, and at once again as soon as the platform is there."""

import pytest

from worker.runtime import gate as gate_module
from worker.runtime.gate import EMPTY_TAKE_S, FREE_EMPTY_TAKES, MAX_PAUSE_S, Gate


class Clock:
    """Time that passes only in sleeps and where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gate_module, "time", clock)
    monkeypatch.setattr(gate_module, "_leave_as_soon_as_idle", lambda: None)
    return clock


@pytest.fixture
def gate(clock: Clock) -> Gate:
    """A gate that has been asked for the first time; nothing has been taken yet."""
    gate = Gate()
    assert gate.concurrency_modifier(1) == 1
    return gate


def _ask(gate: Gate, clock: Clock, times: int, each_take_s: float = 0.001) -> list[float]:
    """The pauses before so many takes that come back empty after so long."""
    clock.slept.clear()
    for _ in range(times):
        clock.now += each_take_s
        assert gate.concurrency_modifier(1) == 1
    return list(clock.slept)


def test_takes_that_are_held_open_are_never_delayed(gate: Gate, clock: Clock) -> None:
    assert _ask(gate, clock, 200, each_take_s=2 * EMPTY_TAKE_S) == []


def test_a_few_empty_answers_in_a_row_are_nothing(gate: Gate, clock: Clock) -> None:
    assert _ask(gate, clock, FREE_EMPTY_TAKES) == []
    assert _ask(gate, clock, 1, each_take_s=1.0) == []
    assert _ask(gate, clock, FREE_EMPTY_TAKES) == []


def test_pauses_grow_up_to_the_longest_and_stay_there(gate: Gate, clock: Clock) -> None:
    pauses = _ask(gate, clock, FREE_EMPTY_TAKES + 50)

    assert len(pauses) == 50
    assert pauses == sorted(pauses)
    assert pauses[0] == 2 * EMPTY_TAKE_S
    assert pauses[-1] == MAX_PAUSE_S
    assert sum(pauses[:5]) < 5  # seconds: a short trouble is not answered with a long pause


def test_an_hour_of_trouble_is_a_bounded_number_of_takes(gate: Gate, clock: Clock) -> None:
    started, takes = clock.now, 0
    while clock.now - started < 3600:
        _ask(gate, clock, 1)
        takes += 1

    assert takes <= 3600 / MAX_PAUSE_S + 20


def test_half_a_day_of_trouble_does_not_end_the_worker(gate: Gate, clock: Clock) -> None:
    assert set(_ask(gate, clock, 20_000)[-10_000:]) == {MAX_PAUSE_S}


@pytest.mark.parametrize("cure", ["a job", "a take that waits"])
def test_the_platform_is_back_and_so_is_the_pace(cure: str, gate: Gate, clock: Clock) -> None:
    assert _ask(gate, clock, FREE_EMPTY_TAKES + 20)[-1] == MAX_PAUSE_S

    if cure == "a job":
        gate.job_taken()
    else:
        assert _ask(gate, clock, 1, each_take_s=1.0) == []

    assert _ask(gate, clock, FREE_EMPTY_TAKES) == []


def test_a_pause_is_not_taken_for_a_take_that_waited(gate: Gate, clock: Clock) -> None:
    """Else every second take of a platform in trouble would come without a pause."""
    _ask(gate, clock, FREE_EMPTY_TAKES + 10)

    assert len(_ask(gate, clock, 10)) == 10


def test_a_job_in_progress_is_not_held_up(gate: Gate, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module.JobsProgress, "get_job_count", lambda self: 1)
    gate.mark_broken()  # not even a broken process leaves before its result has

    assert _ask(gate, clock, FREE_EMPTY_TAKES + 10) == []


def test_a_broken_process_leaves_before_the_next_take(gate: Gate) -> None:
    gate.mark_broken()

    with pytest.raises(SystemExit) as leaving:
        gate.concurrency_modifier(1)
    assert leaving.value.code == 1
