"""Pictures that are drawn at once are those that are drawn alone; and what goes wrong with one job ends that job.

On a CPU the sums of a batch are taken in another order than those of one picture; nothing else differs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.helpers.drawing import SMALL, scene, uri
from tests.helpers.every_kind import EDGES, IMAGE, JOBS, MASK, equipped
from tests.helpers.faults import last_layer, raising
from tests.helpers.tiny_addons import Kits
from worker.api.parse import parse
from worker.engine.batch_size import BatchSize
from worker.engine.drawing import Drawing, Outcome
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs
from worker.errors import JobCancelledError
from worker.plan import make_plan
from worker.request import GeneratedImage

LEAST_PSNR = 50.0  # dB, of values from 0 to 255
FAMILIES = ("sd1", "sdxl", "sd3", "flux")


@pytest.fixture(scope="module")
def engines(kits: Kits) -> dict[str, Engine]:
    return {family: equipped(kits, family) for family in FAMILIES}


class Asked:
    """One job, and what came of it."""

    def __init__(self, engine: Engine, on_step: Callable[..., None] = lambda *_: None, **fields: Any) -> None:
        self.pictures: list[GeneratedImage] = []
        self.steps: list[tuple[int, int]] = []
        request = parse({"input": {**SMALL, **fields}}, engine.capabilities)[0]

        def step(done: int, total: int, make_preview: Any) -> None:
            self.steps.append((done, total))
            on_step(done, total, make_preview)

        self.drawing = Drawing(make_plan(request), step, self.pictures.append)


def _draw(engine: Engine, asked: Sequence[Asked], max_batch: int = 4) -> list[Outcome]:
    engine = replace(
        engine, batch_size=BatchSize(max_batch, 0, 0, "StableDiffusion3" not in type(engine.pipeline).__name__)
    )
    return draw_jobs(engine, [one.drawing for one in asked], recover=lambda error: error)


def _assert_alike(found: Sequence[GeneratedImage], expected: Sequence[GeneratedImage]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.picture == other.picture and one.nsfw == other.nsfw
        ours, theirs = (np.asarray(each.image, np.float64) for each in (one, other))
        error = float(np.mean((ours - theirs) ** 2))
        assert error == 0 or 10 * np.log10(255**2 / error) > LEAST_PSNR
        assert theirs.std() > 1, "an empty picture proves nothing"


PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({}, {"prompt": "another", "seed": 5}),
    "image": ({"image": IMAGE, "strength": 0.6}, {"image": uri(scene(seed=9)), "strength": 0.6, "seed": 5}),
    "mask": ({"image": IMAGE, "mask": MASK}, {"image": uri(scene(seed=9)), "mask": MASK, "prompt": "another"}),
    "control": ({"controlnet": EDGES}, {"controlnet": {**EDGES, "image": uri(scene(seed=9))}, "seed": 5}),
    "LoRA": ({"lora": "plain"}, {"lora": "plain", "prompt": "another"}),
    "hires": ({"hires": {"scale": 1.5}}, {"hires": {"scale": 1.5}, "seed": 5}),
    "by step": ({"prompt": "a [cat:dog:0.3]"}, {"prompt": "[a star::0.6] [b:c:2]", "seed": 5}),
    "long": ({"prompt": "a star, " * 50}, {"prompt": "short", "seed": 5}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", PAIRS)
def test_two_jobs_in_one_batch(kind: str, family: str, engines: dict[str, Engine]) -> None:
    engine, fields = engines[family], PAIRS[kind]
    alone = [Asked(engine, **one) for one in fields]
    for one in alone:
        assert _draw(engine, [one])[0].error is None
    together = [Asked(engine, **one) for one in fields]
    outcomes = _draw(engine, together)

    assert [one.error for one in outcomes] == [None, None]
    for one, other in zip(together, alone, strict=True):
        _assert_alike(one.pictures, other.pictures)
        assert one.steps[-1] == other.steps[-1], "progress ends at its total"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("job", {str(job): job for job in JOBS}.values(), ids=lambda job: " ".join(job) or "plain")
def test_several_pictures_of_one_job_in_one_batch(job: Any, family: str, engines: dict[str, Engine]) -> None:
    engine = engines[family]
    alone, together = (Asked(engine, **{**job, "num_images": 3}) for _ in range(2))
    _draw(engine, [alone], max_batch=1)
    (outcome,) = _draw(engine, [together], max_batch=2)

    assert outcome.error is None
    _assert_alike(together.pictures, alone.pictures)


def test_what_one_is_guided_away_from_is_its_own(engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]
    fields: list[dict[str, Any]] = [{}, {"negative_prompt": "grey"}, {"negative_prompt": "a long one, " * 40}]
    alone, together = ([Asked(engine, **one) for one in fields] for _ in range(2))
    for one in alone:
        _draw(engine, [one])
    _draw(engine, together)
    for one, other in zip(together, alone, strict=True):
        _assert_alike(one.pictures, other.pictures)


def test_several_are_really_drawn_at_once(engines: dict[str, Engine]) -> None:
    engine, calls = engines["sd1"], []
    layer = last_layer(engine, "denoiser")
    handle = layer.register_forward_pre_hook(lambda _, given: calls.append(given[0].shape[0]))
    try:
        outcomes = _draw(engine, [Asked(engine, num_images=2), Asked(engine, num_images=3)], max_batch=4)
    finally:
        handle.remove()

    assert calls == [8] * 4 + [2] * 4, "twice as many, because each is guided"
    assert [one.batch for one in outcomes] == [4, 4]


@pytest.mark.parametrize("which", [0, 1])
def test_a_cancel_in_a_batch_ends_one_job_alone(which: int, engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]

    def cancel(done: int, *_: Any) -> None:
        if done == 2:
            raise JobCancelledError("cancelled")

    alone = Asked(engine, seed=1 - which)
    _draw(engine, [alone])
    asked = [Asked(engine, cancel if number == which else lambda *_: None, seed=number) for number in range(2)]
    outcomes = _draw(engine, asked)

    assert isinstance(outcomes[which].error, JobCancelledError) and asked[which].pictures == []
    assert outcomes[1 - which].error is None
    _assert_alike(asked[1 - which].pictures, alone.pictures)


def test_after_a_failure_nothing_is_done_for_what_nobody_draws(engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]
    with (
        mock.patch.object(type(engine), "repair", autospec=True, side_effect=type(engine).repair) as repair,
        raising(last_layer(engine, "denoiser"), lambda: KeyError("a bug")),
    ):
        (outcome,) = _draw(engine, [Asked(engine, num_images=3)], max_batch=1)
    assert isinstance(outcome.error, KeyError)
    assert repair.call_count == 0, "that is for whoever hears of the error"


def test_when_nobody_waits_any_more_the_batch_is_left(engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]

    def cancel(*_: Any) -> None:
        raise JobCancelledError("cancelled")

    asked = [Asked(engine, cancel, seed=number) for number in range(2)]
    outcomes = _draw(engine, asked)
    assert [type(one.error) for one in outcomes] == [JobCancelledError] * 2
    assert [len(one.steps) for one in asked] == [1, 1]


def test_a_batch_that_fails_is_drawn_again_job_by_job_before_anybody_is_called_guilty(
    engines: dict[str, Engine],
) -> None:
    engine = engines["sd1"]
    alone = [Asked(engine, seed=number) for number in range(3)]
    for one in alone:
        _draw(engine, [one])
    asked = [Asked(engine, seed=number) for number in range(3)]
    # At the second step of the batch, and at the first of the second job alone.
    with raising(last_layer(engine, "denoiser"), lambda: KeyError("a bug"), at=2) as first:
        outcomes = _draw(engine, asked)
    assert first.happened == 1
    assert [one.error for one in outcomes] == [None] * 3, "what went wrong once was nobody's"
    for one, other in zip(asked, alone, strict=True):
        _assert_alike(one.pictures, other.pictures)
        assert one.steps[-1] == other.steps[-1]


def test_the_guilty_one_alone_fails(engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]
    asked = [Asked(engine, seed=number) for number in range(3)]
    calls = []

    def fail(_: Any, given: Any) -> None:
        calls.append(given[0].shape[0])
        if given[0].shape[0] > 2 or calls.count(2) == 5:  # any batch, and the second job, whose first step is the fifth
            raise KeyError("a bug")

    handle = last_layer(engine, "denoiser").register_forward_pre_hook(fail)
    try:
        outcomes = _draw(engine, asked)
    finally:
        handle.remove()
    assert [type(one.error) for one in outcomes] == [type(None), KeyError, type(None)]
    assert [len(one.pictures) for one in asked] == [1, 0, 1]


def test_memory_that_runs_out_halves_the_batch(engines: dict[str, Engine]) -> None:
    engine, calls = engines["sd1"], []

    def fail(_: Any, given: Any) -> None:
        calls.append(given[0].shape[0])
        if given[0].shape[0] > 4:
            raise MemoryError

    handle = last_layer(engine, "denoiser").register_forward_pre_hook(fail)
    asked = Asked(engine, num_images=4)
    try:
        (outcome,) = _draw(engine, [asked])
    finally:
        handle.remove()
    assert outcome.error is None and len(asked.pictures) == 4
    assert calls == [8] + [4] * 8
    assert not any(one.low_memory for one in asked.pictures)
