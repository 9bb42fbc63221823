"""A worker with several engines, here on the CPU, gives the answers of one with a single engine."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.every_kind import JOBS
from tests.helpers.faults import Answer, a_worker, is_open, last_layer, raising, run
from tests.helpers.tiny_addons import Kits
from worker.engine import generate, grouping
from worker.engine.adapters import loras
from worker.engine.drawing import DrawnJob, Outcome
from worker.engine.engine import Engine
from worker.engine.load import devices, loader
from worker.engine.load.devices import choose_devices
from worker.errors import SettingsError
from worker.runtime.worker import Worker
from worker.settings import Settings

ENGINES = 3
# Stable Diffusion 3's ControlNets sample by the generator of the device, which engines on one device would share.
FAMILIES = {"sd1": JOBS, "sdxl": JOBS[4:10], "sd3": JOBS[:2], "flux": JOBS[:6:2]}
FEW = {"num_inference_steps": 2}


def _told(answer: Answer) -> tuple[Any, ...]:
    assert "error" not in answer, answer
    return answer["images"], answer.get("warnings"), answer["seeds"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_job(family: str, kits: Kits) -> None:
    parts = ["loras", "controlnets"] + ["ip_adapter"] * (family in ("sd1", "sdxl"))
    jobs = [{**FEW, "num_images": 3, **job} for job in FAMILIES[family]]
    with a_worker(**kits[family].settings(*parts)) as worker:
        alone = [_told(run(worker, **job)) for job in jobs]
    with (
        a_worker(**kits[family].settings(*parts), GPUS=str(ENGINES)) as worker,
        ThreadPoolExecutor(len(jobs)) as callers,
    ):
        one_by_one = [_told(run(worker, **job)) for job in jobs]
        together = list(callers.map(lambda job: _told(run(worker, **job)), jobs))
    assert one_by_one == alone
    assert together == alone


@pytest.fixture(scope="module")
def worker(kits: Kits) -> Iterator[Worker]:
    with a_worker(**kits["sd1"].settings("loras"), GPUS=str(ENGINES), JOBS_AT_ONCE="2") as worker:
        yield worker


def test_each_engine_draws(worker: Worker) -> None:
    calls = [0] * ENGINES

    def count(number: int) -> None:
        calls[number] += 1

    handles = [
        last_layer(one.engine, "denoiser").register_forward_pre_hook(lambda *_, number=number: count(number))
        for number, one in enumerate(worker.model.replicas)
    ]
    run(worker, num_images=6, **FEW)
    for handle in handles:
        handle.remove()
    assert calls == [4] * ENGINES, "two pictures of two steps each"


def test_a_lora_is_fetched_once_for_all_of_them(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def make_fetcher(_: Settings) -> Callable[[str], Path]:
        def fetch(place: str) -> Path:
            fetched.append(place)
            return Path(place)

        return fetch

    monkeypatch.setattr(loader, "make_lora_fetcher", make_fetcher)
    job = {**next(job for job in JOBS if "loras" in job), **FEW, "num_images": ENGINES}
    with a_worker(**kits["sd1"].settings("loras"), GPUS=str(ENGINES)) as worker:
        for _ in range(2):
            _told(run(worker, **job))
        assert all(one.engine.loras._loaded for one in worker.model.replicas)
    assert len(fetched) == len(set(fetched))


def test_weights_on_one_device_are_there_once(worker: Worker) -> None:
    first, *others = (one.engine.pipeline.unet for one in worker.model.replicas)
    for other in others:
        assert other is not first
        for weight, same in zip(first.parameters(), other.parameters(), strict=True):
            assert weight is not same and weight.data_ptr() == same.data_ptr()


def test_no_more_engines_than_main_memory_has_room_for_draw(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = 10**9
    monkeypatch.setattr(loader, "find_waiting", lambda *_: waiting)
    monkeypatch.setattr(grouping, "find_free_main_memory", lambda: 2 * waiting - 1)
    with a_worker(**kits["sd1"].settings(), GPUS=str(ENGINES)) as worker:
        assert len(worker.model.replicas) == worker.gate._jobs_at_once == 2
        assert _told(run(worker, num_images=3, **FEW))


def test_jobs_at_once_are_those_of_each(worker: Worker) -> None:
    assert worker.gate._jobs_at_once == 2 * ENGINES


def test_an_engine_that_breaks_costs_no_picture_and_the_worker_leaves_after_the_job(kits: Kits) -> None:
    job = {"num_images": 6, **FEW}
    with a_worker(**kits["sd1"].settings(), GPUS=str(ENGINES)) as worker:
        whole = _told(run(worker, **job))
        engine = worker.model.replicas[1].engine
        fault = RuntimeError("CUDA error: an illegal memory access was encountered")
        with raising(last_layer(engine, "denoiser"), lambda: fault, at=2, times=10**6) as happened:
            assert _told(run(worker, **job)) == whole
            failures = happened.happened
            assert failures and not is_open(worker)
            assert _told(run(worker, **job)) == whole, "what was taken before is drawn by the others"
            assert happened.happened == failures


def test_a_device_that_answers_nothing_any_more_costs_no_picture(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its first fault CUDA refuses all: what the device is asked when a job is over, too."""
    job = {"num_images": 6, **FEW}
    with a_worker(**kits["sd1"].settings(), GPUS=str(ENGINES)) as worker:
        whole = _told(run(worker, **job))
        engine, tell = worker.model.replicas[1].engine, DrawnJob.outcome
        fault = torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)

        def outcome(one: DrawnJob) -> Outcome:
            if one._engine is engine:
                raise fault
            return tell(one)

        monkeypatch.setattr(DrawnJob, "outcome", outcome)
        with raising(last_layer(engine, "denoiser"), lambda: fault, at=2, times=10**6) as happened:
            assert _told(run(worker, **job)) == whole
        assert happened.happened and not is_open(worker)
        assert worker.model.replicas[1] not in worker.model.batcher.artists


def test_a_pair_that_loses_its_second_device_draws_on_with_the_first(
    kits: Kits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one answers nothing any more after the first two pictures, like a card that has fallen off the bus."""
    job = {"num_images": 4, **FEW}
    with a_worker(**kits["sd1"].settings(), GPUS="2", GPUS_PER_PICTURE="2", MAX_BATCH="1") as worker:
        whole = _told(run(worker, **job))
        (replica,) = worker.model.replicas
        partner, drawn = replica._partner, generate.draw_batch
        batches: list[Any] = []

        def draw_batch(engine: Engine, items: Any) -> Any:
            batches.append(items)
            if len(batches) > 2 and replica._partner is not None:
                raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered", 214)
            return drawn(engine, items)

        monkeypatch.setattr(generate, "draw_batch", draw_batch)
        monkeypatch.setattr(Engine, "works", lambda one: one is not partner)
        assert _told(run(worker, **job)) == whole
        assert not is_open(worker) and len(batches) == 2 + 1 + 2
        assert _told(run(worker, **job)) == whole


def test_a_device_that_no_thread_can_enter_costs_no_picture(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"num_images": 6, **FEW}
    with a_worker(**kits["sd1"].settings(), GPUS=str(ENGINES)) as worker:
        engine, enter = worker.model.replicas[1].engine, Engine.drawing

        def drawing(one: Engine, *rest: Any) -> Any:
            if one is engine:
                raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered", 214)
            return enter(one, *rest)

        monkeypatch.setattr(Engine, "drawing", drawing)
        first = run(worker, **job)
        assert not is_open(worker) and worker.model.replicas[1] not in worker.model.batcher.artists
        assert _told(first) == _told(run(worker, **job))


def test_a_bug_in_one_engine_is_the_jobs_own_and_costs_no_engine(worker: Worker) -> None:
    engine = worker.model.replicas[1].engine
    with raising(last_layer(engine, "denoiser"), lambda: KeyError("a bug"), at=1):
        answer = run(worker, num_images=6, **FEW)
    assert answer["code"] == "INTERNAL_ERROR"
    assert is_open(worker)
    assert _told(run(worker, num_images=6, **FEW))


def test_memory_that_runs_out_on_one_is_drawn_there_once_more(worker: Worker) -> None:
    whole = _told(run(worker, num_images=3, **FEW))
    engine = worker.model.replicas[2].engine
    with raising(last_layer(engine, "decoder"), MemoryError, at=1) as fault:
        answer = run(worker, num_images=3, **FEW)
    assert fault.happened and "error" not in answer
    assert answer["seeds"] == whole[2]


@pytest.mark.parametrize("lost", [[1], [0, 2], [0, 1, 2]])
def test_without_memory_for_a_lora_on_one_the_others_draw_its_pictures(
    lost: list[int], kits: Kits, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {**next(job for job in JOBS if "loras" in job), **FEW, "num_images": 6}
    with a_worker(**kits["sd1"].settings("loras"), GPUS=str(ENGINES)) as worker:
        full = [worker.model.replicas[number].engine.pipeline for number in lost]
        load = loras.add_adapter

        def add_adapter(pipeline: Any, *rest: Any) -> Any:
            if pipeline in full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return load(pipeline, *rest)

        monkeypatch.setattr(loras, "add_adapter", add_adapter)
        answer = run(worker, **job)
        assert is_open(worker) and len(worker.model.batcher.artists) == ENGINES
        if len(lost) == ENGINES:
            assert answer["code"] == "OUT_OF_MEMORY"
            full.clear()
        monkeypatch.setattr(loras, "add_adapter", load)
        assert len(lost) == ENGINES or _told(answer) == _told(run(worker, **job))
        assert len(_told(run(worker, **job))[0]) == 6


@pytest.mark.parametrize(("setting", "there", "expected"), [("auto", 3, 3), ("2", 3, 2), ("1", 3, 1), ("auto", 1, 1)])
def test_as_many_devices_as_the_owner_wants(
    setting: str, there: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _have(there, monkeypatch)
    found = choose_devices(Settings(gpus=setting))
    assert found == [torch.device("cuda", number) for number in range(expected)]


def test_more_than_are_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _have(2, monkeypatch)
    with pytest.raises(SettingsError, match=r"^GPUS: got 4; this worker has 2$"):
        choose_devices(Settings(gpus="4"))


def _have(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda device: "a card")
