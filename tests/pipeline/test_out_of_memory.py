"""Memory that runs out once costs time and a warning; twice, an error that says so. The worker goes on either way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.helpers import tiny_editors, tiny_models
from tests.helpers.drawing import SMALL, bytes_alive, scene, uri
from tests.helpers.faults import a_worker, engine_of, last_layer, raising, run, state
from tests.helpers.tiny_addons import Kits
from worker.api.parse import parse
from worker.engine.adapters import loras
from worker.engine.adapters.lora_fit import add_adapter
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.errors import OutOfMemoryError
from worker.plan import make_plan
from worker.runtime.failures import classify
from worker.runtime.worker import Worker

WIDE = {"width": 576}  # wider than the tiles
ERRORS: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "machine": MemoryError,
    "cpu allocator": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
}


@pytest.fixture(scope="module")
def worker(kits: Kits) -> Iterator[Worker]:
    """Stable Diffusion 1 with LoRAs."""
    with a_worker(**kits["sd1"].settings("loras")) as worker:
        assert "error" not in run(worker, lora="wordy")
        yield worker


@pytest.fixture
def engine(worker: Worker) -> Engine:
    """Its engine."""
    return engine_of(worker)


def drawn(worker: Worker, **fields: Any) -> dict[str, Any]:
    answer = run(worker, **fields)
    answer.pop("timings")
    return answer


@pytest.mark.parametrize(
    ("place", "error"),
    [("text encoder", "cuda"), ("denoiser", "cuda"), ("denoiser", "machine"), ("decoder", "cpu allocator")],
)
def test_once_costs_a_warning(place: str, error: str, worker: Worker, engine: Engine) -> None:
    before, how_it_was = drawn(worker), state(engine)

    with raising(last_layer(engine, place), ERRORS[error]) as fault:
        spared = drawn(worker)

    assert fault.happened == 1
    (warning,) = spared.pop("warnings")
    assert warning.startswith("memory ran out; 1 of the pictures")
    assert spared == {name: value for name, value in before.items() if name != "warnings"}  # too small for tiles
    assert engine.pipeline.vae.use_tiling is False
    assert state(engine) == how_it_was
    assert drawn(worker) == before


def test_the_second_time_it_is_decoded_by_tiles_and_only_then(worker: Worker, engine: Engine) -> None:
    vae: Any = engine.pipeline.vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 1024, 128  # as Stable Diffusion XL's: no tile at native size
    widest: list[int] = []
    handle = vae.decoder.conv_out.register_forward_pre_hook(lambda _, inputs: widest.append(inputs[0].shape[-1]))
    before, held = drawn(worker, **WIDE), bytes_alive()
    assert widest == [576]
    try:
        with raising(last_layer(engine, "denoiser"), ERRORS["cuda"]):
            spared = drawn(worker, **WIDE)
        tiled = widest[1:]
        again = drawn(worker, **WIDE)
    finally:
        handle.remove()

    assert len(tiled) > 1 and max(tiled) <= 512
    assert spared["images"] != before["images"]
    assert (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size) == (False, 1024, 128)
    assert again == before
    assert bytes_alive() <= held


def test_tiles_that_the_memory_plan_wants_stay(worker: Worker, engine: Engine) -> None:
    vae = engine.pipeline.vae
    vae.enable_tiling()
    try:
        with raising(last_layer(engine, "denoiser"), ERRORS["cuda"]):
            assert drawn(worker)["warnings"]
        assert vae.use_tiling is True
    finally:
        vae.disable_tiling()


def test_the_lora_acts_the_second_time_too(worker: Worker, engine: Engine) -> None:
    with_lora, without = drawn(worker, lora="wordy"), drawn(worker)
    with raising(last_layer(engine, "decoder"), ERRORS["cuda"]):
        spared = drawn(worker, lora="wordy")
    assert spared["images"] == with_lora["images"] != without["images"]
    assert drawn(worker) == without


@pytest.mark.parametrize("place", ["text encoder", "denoiser", "decoder"])
def test_twice_is_an_error_that_says_what_to_do(place: str, worker: Worker, engine: Engine) -> None:
    before = drawn(worker)
    with raising(last_layer(engine, place), ERRORS["cuda"], times=2) as fault:
        answer = run(worker)
    assert fault.happened == 2
    assert answer["code"] == "OUT_OF_MEMORY" and "fewer pixels" in answer["error"]
    assert "refresh_worker" not in answer
    assert engine.pipeline.vae.use_tiling is False
    assert drawn(worker) == before


@pytest.mark.parametrize(
    ("scheduler", "fields"),
    [("Euler", {}), ("Heun", {"num_images": 3}), ("Euler", {"hires": {"scale": 1.5}, "num_images": 2})],
)
def test_progress_stays_within_its_total_and_ends_there(scheduler: str, fields: Any, engine: Engine) -> None:
    request = parse({"input": {**SMALL, **fields, "scheduler": scheduler}}, engine.capabilities)[0]
    calls: list[tuple[int, int]] = []
    untroubled: list[tuple[int, int]] = []
    list(generate(engine, make_plan(request), lambda *step: untroubled.append(step[:2])))
    decoded = 2 if "hires" in fields else 1

    with raising(last_layer(engine, "decoder"), ERRORS["cuda"], at=decoded + 1 if "num_images" in fields else 1):
        pictures = list(generate(engine, make_plan(request), lambda *step: calls.append(step[:2])))

    assert [one.low_memory for one in pictures].count(True) == 1
    assert all(1 <= done <= total for done, total in calls)
    back = [i for i in range(1, len(calls)) if calls[i][0] <= calls[i - 1][0]]
    assert len(back) == 1, "once, to the beginning of the picture that is drawn anew"
    assert (calls[back[0]][0] - 1) * len(request.pictures) % untroubled[-1][1] == 0
    assert calls[-1] == untroubled[-1] == (untroubled[-1][1],) * 2


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """FLUX.2 klein, which takes up to four pictures to look at."""
    folder = tiny_models.save(tiny_editors.klein(), tmp_path_factory.mktemp("klein"))
    with tiny_editors.small_references(), a_worker(MODEL_NAME=str(folder)) as worker:
        yield worker


@contextmanager
def room_for(worker: Worker, pictures: int) -> Iterator[None]:
    """Memory runs out in passes that look at more pictures than so many; each has a time of its own."""

    def count(_: object, __: object, named: dict[str, Any]) -> None:
        times = named["img_ids"][..., 0].unique()
        if len(times) - 1 > pictures:
            raise ERRORS["cuda"]()

    handle = engine_of(worker).pipeline.transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def bring(pictures: int) -> dict[str, Any]:
    return {"images": [uri(scene(seed=seed)) for seed in range(pictures)], "width": 64, "height": 64}


@pytest.mark.parametrize("pictures", [2, 4])
def test_more_pictures_than_there_is_memory_for_are_an_error_that_names_them(pictures: int, editor: Worker) -> None:
    before = drawn(editor, **bring(1))

    with room_for(editor, pictures - 1):
        for _ in range(3):  # however often, as what is known to be good is drawn after each
            answer = run(editor, **bring(pictures))
            assert answer["code"] == "OUT_OF_MEMORY" and "refresh_worker" not in answer, answer
            assert f"{pictures} pictures in images; bring fewer" in answer["message"]
        assert drawn(editor, **bring(1)) == before

    assert "error" not in run(editor, **bring(pictures))


def test_one_picture_to_look_at_is_not_said_to_be_too_many(editor: Worker) -> None:
    with room_for(editor, 0):
        answer = run(editor, **bring(1))

    assert answer["code"] == "OUT_OF_MEMORY" and "images" not in answer["message"]


def test_many_pictures_have_a_second_try(editor: Worker) -> None:
    before = drawn(editor, **bring(4))

    with raising(engine_of(editor).pipeline.transformer, ERRORS["cuda"]) as fault:
        spared = drawn(editor, **bring(4))

    assert fault.happened == 1
    assert spared["images"] == before["images"]
    assert [one for one in spared["warnings"] if one.startswith("memory ran out")]


def test_a_lora_for_which_there_is_no_memory_is_not_called_a_bad_file(
    kits: Kits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_worker(**kits["sd1"].settings("loras")) as worker:
        before = drawn(worker)

        def half_loaded(*args: Any) -> None:
            add_adapter(*args)
            raise ERRORS["cuda"]()

        with monkeypatch.context() as patch:
            patch.setattr(loras, "add_adapter", half_loaded)
            answer = run(worker, lora="plain")
        assert answer["code"] == "OUT_OF_MEMORY", answer
        assert drawn(worker) == before
        assert drawn(worker, lora="plain")["images"] != before["images"]


def test_what_counts_as_memory() -> None:
    assert all(isinstance(classify(error()), OutOfMemoryError) for error in ERRORS.values())
    assert not isinstance(classify(RuntimeError("c10::Half and bias type (float)")), OutOfMemoryError)
