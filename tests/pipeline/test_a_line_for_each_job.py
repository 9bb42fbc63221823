"""When a job is over, one line of the log holds its figures, and the answer the same seconds, and what it cost."""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.faults import a_worker, as_if_fresh, engine_of, last_layer, raising, run
from worker.runtime.worker import Worker

DOCUMENT = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
PRICE = 0.5
STAGES = ("waited_s", "text_s", "denoise_s", "decode_s", "encode_s", "deliver_s")


class Written(io.StringIO):
    """What a worker writes."""

    def jobs(self) -> list[dict[str, Any]]:
        """Its lines about jobs that are over."""
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line for line in lines if "code" in line]


@contextmanager
def on_the_platform(**environment: str) -> Iterator[tuple[Worker, Written]]:
    """A worker that writes as on the platform, and what it writes."""
    written = Written()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", written)
        patch.setattr("worker.runtime.worker.on_platform", lambda: True)
        patch.setattr("worker.runtime.progress.Progress.step", lambda *_: None)  # there is no platform to tell
        with a_worker(**environment) as worker:
            yield worker, written


@pytest.fixture(scope="module")
def loaded(tiny_sd1: str) -> Iterator[tuple[Worker, Written]]:
    """One with a price."""
    with on_the_platform(MODEL_NAME=tiny_sd1, PRICE_PER_SECOND=str(PRICE)) as loaded:
        yield loaded


@pytest.fixture
def worker(loaded: tuple[Worker, Written]) -> Worker:
    """It."""
    return loaded[0]


@pytest.fixture
def line(loaded: tuple[Worker, Written]) -> Callable[[], dict[str, Any]]:
    """Gives its last line about a job."""
    return lambda: loaded[1].jobs()[-1]


def test_a_picture_that_was_drawn(worker: Worker, line: Any) -> None:
    answer = run(worker, prompt="a red secret", width=128, num_images=2, seed=3)
    said = line()

    assert said["requestId"] == "test" and said["level"] == "INFO" and said["code"] == "OK"
    assert (said["width"], said["height"], said["steps"], said["pictures"], said["seed"]) == (128, 64, 4, 2, 3)
    assert said["task"] == "text to image" and said["model"] == answer["model"]
    assert said["fields"] == sorted(
        ["prompt", "width", "height", "num_inference_steps", "guidance_scale", "num_images", "seed"]
    )
    assert said["bytes"] > 0 and said["retried"] is False
    assert "secret" not in json.dumps(said)
    assert {name: said[name] for name in STAGES} == answer["timings"]


def test_the_stages_are_what_the_job_took(worker: Worker, line: Any) -> None:
    run(worker, num_inference_steps=20)
    said = line()
    stages = sum(said[name] for name in STAGES)

    assert said["denoise_s"] > 0 and said["text_s"] > 0 and said["decode_s"] > 0
    assert 0.7 * said["total_s"] < stages <= said["total_s"] + 0.01


def test_the_first_job_of_a_process_is_told_from_the_others(tiny_sd1: str) -> None:
    with on_the_platform(MODEL_NAME=tiny_sd1) as (worker, written):
        answers = [run(worker, seed=seed) for seed in (1, 2, 3)]

    assert [one["first"] for one in written.jobs()] == [True, False, False]
    assert all("cost" not in answer for answer in answers), "without a price"


def test_a_refused_one_names_its_fields_and_not_what_they_held(worker: Worker, line: Any) -> None:
    run(worker, width="canary", hires={"scale": 99}, canary=1)
    said = line()

    assert said["code"] == "INVALID_INPUT"
    assert said["refused"] == ["hires", "width"]
    assert "canary" not in json.dumps(said)
    assert "denoise_s" not in said and "model" not in said


def test_its_words_and_figures_are_the_logs_own_whatever_the_job_brought(worker: Worker, line: Any) -> None:
    words = ["OK", "test", "INFO", "text to image: ", " x 64x64, ", "4 steps", "seed 3; ", "denoise", "INVALID_INPUT"]
    run(worker, prompt=words, size="64x64", width=None, height=None, seed=3)
    drawn = line()
    run(worker, prompt=words, size="64x64", no_such_field=1, steps=-1)
    refused = line()

    assert drawn["message"].startswith("text to image: 9 x 64x64, 4 steps, seed 3; ")
    assert (drawn["requestId"], drawn["level"], drawn["code"]) == ("test", "INFO", "OK")
    assert refused["message"].startswith("failed: INVALID_INPUT (")
    assert (refused["requestId"], refused["level"], refused["code"]) == ("test", "INFO", "INVALID_INPUT")


class UnspeakableError(RuntimeError):
    """One whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("canary")


@pytest.mark.parametrize("error", [UnspeakableError, lambda: ValueError("canary " * 10_000_000)], ids=["none", "long"])
def test_an_error_that_cannot_say_what_it_is_is_one_like_any_other(error: Any, loaded: Any, line: Any) -> None:
    worker, written = loaded
    before = len(written.getvalue())
    with as_if_fresh(worker), raising(last_layer(engine_of(worker), "denoiser"), error):
        answer = run(worker, prompt="a canary")
    assert answer["code"] == line()["code"] == "INTERNAL_ERROR"
    said = [json.loads(one)["message"] for one in written.getvalue()[before:].splitlines()]
    assert "canary" not in str(answer)
    assert len("".join(said)) < 50_000 and any("Traceback" in one for one in said)
    assert not [found for one in said for found in re.findall(r"^\S*Error: .*canary.*", one, re.MULTILINE)]


def test_one_that_was_drawn_again_says_so(worker: Worker, line: Any) -> None:
    with raising(last_layer(engine_of(worker), "decoder"), MemoryError):
        run(worker)
    assert line()["retried"] is True


def test_the_cost_is_that_of_the_jobs_own_seconds(worker: Worker, line: Any) -> None:
    answer = run(worker, num_inference_steps=20)
    said = line()
    assert answer["cost"] == pytest.approx(PRICE * (said["total_s"] - said["waited_s"]), rel=0.2)


def test_every_key_is_documented_and_the_example_has_them_all(worker: Worker, line: Any) -> None:
    run(worker)
    keys = set(line())
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?`) \|", DOCUMENT, re.MULTILINE))))
    example = json.loads(DOCUMENT.partition("```json\n")[2].partition("```")[0])

    assert keys - documented == {"requestId", "message", "level"}
    assert documented - keys == {"refused", "peak_gpu_bytes"}, "of a refused job, and of one on a GPU"
    assert set(example) == keys | {"peak_gpu_bytes"}
