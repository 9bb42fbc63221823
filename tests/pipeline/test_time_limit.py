"""A job that runs past its time limit is stopped between two steps, and the next job is drawn as ever."""

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.drawing import SMALL, draw, picture
from tests.helpers.faults import a_worker, run
from tests.helpers.tiny_addons import Kits
from worker.api.contract import OWN
from worker.api.parse import parse
from worker.api.response import write_failure
from worker.clock import CLOCK
from worker.engine.drawing import Drawing
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs, generate
from worker.errors import JobTimeoutError
from worker.plan import make_plan
from worker.request import GeneratedImage


def test_a_job_is_stopped_at_the_first_step_past_its_deadline(sd1: Engine) -> None:
    steps: list[int] = []

    def slow_step(done: int, total: int, make_preview: object) -> None:
        steps.append(done)
        time.sleep(0.2)

    request = parse({"input": {**SMALL, "num_inference_steps": 100}}, sd1.capabilities)[0]
    with pytest.raises(JobTimeoutError, match=r"\d+ steps.*JOB_TIMEOUT_S"):
        list(generate(sd1, make_plan(request), slow_step, CLOCK.running_time() + 1.0))
    assert 1 <= len(steps) <= 6
    assert steps == list(range(1, len(steps) + 1))


def test_the_limit_is_for_the_whole_job_not_for_each_picture(sd1: Engine) -> None:
    request = parse({"input": {**SMALL, "num_images": 8}}, sd1.capabilities)[0]
    drawn: list[GeneratedImage] = []
    job = Drawing(make_plan(request), lambda *_: time.sleep(0.05), drawn.append, CLOCK.running_time() + 1.0)
    (outcome,) = draw_jobs(sd1, [job], recover=lambda error: error)
    assert isinstance(outcome.error, JobTimeoutError)
    assert 1 <= len(drawn) < 8


def test_a_stopped_job_is_a_plain_error_and_the_worker_goes_on(sd1: Engine) -> None:
    before = picture(sd1)
    with pytest.raises(JobTimeoutError) as stopped:
        draw(sd1, deadline=CLOCK.running_time() - 1)
    answer = write_failure(stopped.value)
    assert answer["code"] == "JOB_TIMEOUT"
    assert "refresh_worker" not in answer
    assert picture(sd1) == before


def test_fetching_what_the_job_brings_counts(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(0.3)
        return parse(*given)

    with a_worker(**kits["sd1"].settings(), JOB_TIMEOUT_S="0.2") as worker:
        monkeypatch.setattr("worker.runtime.job.choose_contract", lambda _: replace(OWN, parse=slow))
        assert run(worker)["error"].startswith("JOB_TIMEOUT: stopped while reading the request: ")


def test_a_job_within_its_limit_is_not_touched(sd1: Engine) -> None:
    (drawn,) = draw(sd1, deadline=CLOCK.running_time() + 600)
    assert drawn.image == picture(sd1)


@pytest.mark.parametrize("scheduler", ["Euler", "Heun", "PNDM", "DPM2"])
def test_steps_are_counted_over_all_pictures_up_to_the_total(scheduler: str, sd1: Engine) -> None:
    """Some schedulers call the network more often than there are steps; the count still ends at its total."""
    calls: list[tuple[int, int]] = []
    request = parse({"input": {**SMALL, "num_images": 2, "scheduler": scheduler}}, sd1.capabilities)[0]
    list(generate(sd1, make_plan(request), lambda *step: calls.append(step[:2]), None))
    total = calls[-1][1]
    assert calls == [(done, total) for done in range(1, total + 1)]
