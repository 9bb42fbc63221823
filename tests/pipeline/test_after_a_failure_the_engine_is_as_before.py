"""Wherever a job fails, and of whatever, the next one is drawn as on a fresh worker, and nothing of it is left."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.helpers.drawing import SMALL, bytes_alive, scene, uri
from tests.helpers.faults import Answer, a_worker, engine_of, last_layer, raising, run, state
from tests.helpers.tiny_addons import Kits
from worker.api.parse import parse
from worker.engine.generate import generate
from worker.engine.recovery import release_exception_memory
from worker.plan import make_plan
from worker.runtime.worker import Worker

FAMILIES: dict[str, dict[str, str]] = {
    "sd1": {},
    "sdxl": {"DTYPE": "float16"},  # its VAE decodes in float32 and goes back
    "sd3": {},
    "flux": {},
}
ERRORS: dict[str, Callable[[], Exception]] = {  # running out of memory in other ways: test_out_of_memory.py
    "INTERNAL_ERROR": lambda: KeyError("a bug"),
    "OUT_OF_MEMORY": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
}
IMAGE = uri(scene())
# where -> (fields of the job, layer, call of that layer)
PLACES: dict[str, tuple[dict[str, Any], str, int]] = {
    "text encoder": ({}, "text encoder", 1),
    "first step": ({}, "denoiser", 1),
    "third step": ({}, "denoiser", 3),
    "decoder": ({}, "decoder", 1),
    "encoder": ({"image": IMAGE}, "encoder", 1),
    "lora": ({"lora": "wordy"}, "denoiser", 2),
    "ip adapter": ({"ip_adapter": {"image": IMAGE, "scale": 0.6}}, "denoiser", 2),
    "second pass": ({"hires": {"scale": 1.5}}, "decoder", 2),
    "second picture": ({"num_images": 2, "lora": "plain"}, "decoder", 2),
}


COMMON = ("text encoder", "third step", "decoder", "lora", "ip adapter")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def worker(family: str, kits: Kits) -> Iterator[Worker]:
    """One worker of the family, with LoRAs and an IP-Adapter beside it."""
    with a_worker(**kits[family].settings("loras", "ip_adapter"), **FAMILIES[family]) as worker:
        for fields, _, _ in PLACES.values():
            assert "error" not in run(worker, **fields)  # all that is kept is loaded now
        yield worker


@pytest.fixture(scope="module")
def before(worker: Worker) -> tuple[Answer, list[Any], int]:
    """The plain job's answer, how the engine is, and the bytes of all tensors."""
    answer = run(worker)
    answer.pop("timings")
    return answer, state(engine_of(worker)), bytes_alive()


def assert_as_before(worker: Worker, before: tuple[Answer, list[Any], int]) -> None:
    answer, how_it_was, held = before
    assert state(engine_of(worker)) == how_it_was
    after = run(worker)
    after.pop("timings")
    assert after == answer
    assert state(engine_of(worker)) == how_it_was
    assert bytes_alive() <= held


def test_wherever_it_fails_the_next_job_is_drawn_as_ever(
    family: str, worker: Worker, before: tuple[Answer, list[Any], int]
) -> None:
    for place in PLACES if family == "sdxl" else COMMON:
        fields, where, call = PLACES[place]
        for code, error in ERRORS.items():
            twice = code == "OUT_OF_MEMORY"  # once would only cost time
            with raising(last_layer(engine_of(worker), where), error, at=call, times=1 + twice) as fault:
                answer = run(worker, **fields)
            assert fault.happened == 1 + twice, place
            assert answer["code"] == code, (place, answer)
            assert_as_before(worker, before)


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_a_progress_report_that_fails_is_a_failure_like_any(
    worker: Worker, before: tuple[Answer, list[Any], int]
) -> None:
    engine = engine_of(worker)
    request = parse({"input": {**SMALL, "lora": "wordy"}}, engine.capabilities)[0]

    def fail(*_: Any) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError) as caught:
        list(generate(engine, make_plan(request), fail))
    release_exception_memory(caught.value)
    del caught
    engine.repair()

    assert_as_before(worker, before)


@pytest.mark.parametrize("place", ["text encoder", "third step", "decoder"])
@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_the_exception_holds_no_tensor_once_it_is_forgotten(
    place: str, worker: Worker, before: tuple[Answer, list[Any], int]
) -> None:
    engine, (fields, where, call) = engine_of(worker), PLACES[place]

    held: list[weakref.ref[torch.Tensor]] = []

    def fail() -> Exception:
        try:
            latents = torch.ones(1000)
            held.append(weakref.ref(latents))
            raise ValueError("the first")
        except ValueError as first:
            return _caused(first)

    with raising(last_layer(engine, where), fail, at=call), pytest.raises(KeyError) as caught:
        list(
            generate(engine, make_plan(parse({"input": {**SMALL, **fields}}, engine.capabilities)[0]), lambda *_: None)
        )
    assert held[0]() is not None, "else this proves nothing"

    release_exception_memory(caught.value)

    assert held[0]() is None
    del caught
    engine.repair()
    assert_as_before(worker, before)


def _caused(first: Exception) -> Exception:
    try:
        raise KeyError("the second") from first
    except KeyError as second:
        return second


def test_forgetting_ends_whatever_causes_what() -> None:
    """`raise error from error` is an exception that is its own cause."""
    error = KeyError("a bug")
    error.__cause__ = error
    release_exception_memory(error)
