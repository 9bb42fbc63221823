"""What the owner sets is drawn with at start, and named if that cannot work; what there was no time for, by its job.

What requests put together and cannot work is refused by field, once it has been seen to fail, before it is drawn.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

from tests.helpers import tiny_addons, tiny_models
from tests.helpers.drawing import assert_same, load_engine, picture, scene, uri
from tests.helpers.faults import Answer, a_worker, as_if_fresh, engine_of, is_open, raising, run, state
from tests.helpers.tiny_addons import Kits
from worker.engine import start_trials
from worker.engine.engine import Engine
from worker.engine.start_trials import try_addons
from worker.errors import SettingsError
from worker.runtime.worker import Worker
from worker.settings import Settings

EDGES, DEPTH = ({"name": name, "image": uri(scene(seed=seed))} for seed, name in enumerate(("edges", "depth"), 1))


@pytest.fixture(scope="module")
def odd(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet that says it is for the model, and whose layers are of other widths."""
    pipeline = tiny_models.sd1()
    pipeline.unet = changed(pipeline.unet, block_out_channels=(8, 16))
    return tiny_addons.controlnet(pipeline, tmp_path_factory.mktemp("odd") / "odd", seed=3)


@pytest.fixture(scope="module")
def loaded(kits: Kits) -> Iterator[Worker]:
    """A worker with LoRAs, two ControlNets and an IP-Adapter."""
    with a_worker(**kits["sd1"].settings("loras", "controlnets", "ip_adapter")) as worker:
        yield worker


@pytest.fixture
def worker(loaded: Worker) -> Iterator[Worker]:
    """It, as if fresh."""
    with as_if_fresh(loaded) as worker:
        yield worker


def changed(part: Any, **entries: Any) -> Any:
    """A module of the same class with other entries in its config."""
    return type(part).from_config({**part.config, **entries})


def tried(engine: Engine, **settings: str) -> Engine:
    try_addons(engine, Settings.model_validate(settings))
    return engine


def test_a_controlnet_that_cannot_work_is_named_at_start(kits: Kits, odd: Path) -> None:
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"odd={odd}")

    with pytest.raises(SettingsError, match="CONTROLNETS: odd: this model cannot draw with it: RuntimeError"):
        tried(engine)


def test_a_refiner_that_cannot_work_is_named_at_start(folders: dict[str, Path], tmp_path: Path) -> None:
    refiner = tiny_models.sdxl_refiner()
    refiner.unet = changed(refiner.unet, cross_attention_dim=48)
    place = tiny_models.save(refiner, tmp_path / "refiner")
    engine = load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(place))

    with pytest.raises(SettingsError, match="REFINER_NAME: this model cannot draw with it: "):
        tried(engine)


def test_a_vae_that_cannot_work_is_named_at_start(folders: dict[str, Path]) -> None:
    engine = load_engine(MODEL_NAME=str(folders["sd1"]), VAE_NAME=str(folders["sd1"] / "vae"))
    tried(engine, vae_name="other")
    layer = engine.pipeline.vae.decoder.conv_in

    with (
        raising(layer, lambda: ValueError("shapes\nmore"), times=100),
        pytest.raises(SettingsError, match=r"VAE_NAME: this model cannot draw with it: ValueError: shapes$"),
    ):
        tried(engine, vae_name="other")


def test_the_trials_leave_nothing_behind(worker: Worker) -> None:
    engine = engine_of(worker)
    before = picture(engine), picture(engine, controlnet=EDGES), state(engine)

    tried(engine)

    assert state(engine) == before[-1]
    assert_same(picture(engine), before[0])
    assert_same(picture(engine, controlnet=EDGES), before[1])


def test_what_was_tried_is_logged(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "worker"):
        tried(engine_of(worker))

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("tried in ")
    assert line.endswith(": IP_ADAPTER, CONTROLNETS: edges, CONTROLNETS: depth, controlnet: edges beside depth")


def test_a_model_that_draws_nothing_without_it_either_is_not_blamed_on_it(worker: Worker) -> None:
    engine = engine_of(worker)

    with raising(engine.pipeline.unet.conv_out, lambda: KeyError("a bug"), times=1_000):
        tried(engine)
    assert "images" in run(worker, controlnet=EDGES)


def test_what_there_was_no_time_for_is_named_by_its_first_job(
    kits: Kits, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_trials, "MAX_START_S", 0.0)
    with a_worker(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"odd={odd}") as worker:
        answers = [run(worker, controlnet={"image": uri(scene())}) for _ in range(2)]
        with raising(engine_of(worker).pipeline.unet.conv_in, AssertionError, times=100) as drawing:
            answers.append(run(worker, controlnet={"image": uri(scene(seed=2))}, num_inference_steps=3))

        assert [fields(answer) for answer in answers] == [["controlnet"]] * 3
        assert drawing.happened == 0, "what is known to fail is not tried again"
        assert "images" in run(worker)
        assert is_open(worker)


def fields(answer: Answer) -> list[str]:
    """Those that a refusal names."""
    assert answer.get("code") == "INVALID_INPUT", answer
    return [one["field"] for one in answer["fields"]]


@contextmanager
def never(part: type, when: Any = lambda *_, **__: True) -> Iterator[None]:
    """Modules of this class fail, always, at such calls."""
    forward = part.forward

    def fail(*inputs: Any, **named: Any) -> Any:
        if when(*inputs, **named):
            raise ValueError("no such thing")
        return forward(*inputs, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "forward", fail)
        yield


def test_what_does_not_go_together_is_refused_by_field_and_then_before_it_is_drawn(worker: Worker) -> None:
    adapted = {"image": uri(scene())}
    both = {"controlnet": EDGES, "ip_adapter": adapted, "lora": "plain"}

    def beside_the_adapter(*_: Any, **named: Any) -> bool:
        return engine_of(worker).pipeline.unet.encoder_hid_proj is not None

    with never(ControlNetConditioningEmbedding, beside_the_adapter):
        first = run(worker, **both)
        with raising(engine_of(worker).pipeline.unet.conv_in, AssertionError, times=100) as drawing:
            second = run(worker, **both, seed=9, width=96)
        apart = [run(worker, ip_adapter=adapted), run(worker, controlnet=EDGES, lora="plain")]

    assert fields(first) == fields(second) == ["ip_adapter"]
    assert first["message"] == second["message"]
    assert "together with controlnet, loras" in first["message"]
    assert drawing.happened == 0
    assert all("images" in answer for answer in apart)
    assert is_open(worker)


def test_a_size_that_cannot_be_drawn_is_refused_under_its_field(worker: Worker) -> None:
    def is_wide(_: Any, sample: torch.Tensor, *__: Any, **___: Any) -> bool:
        return sample.shape[-1] == 12

    with never(type(engine_of(worker).pipeline.unet.conv_in), is_wide):
        answers = [run(worker, width=96) for _ in range(3)]
        assert "images" in run(worker)

    assert [fields(answer) for answer in answers] == [["width"]] * 3
    assert is_open(worker)


def test_a_fault_that_does_not_come_again_is_no_refusal(worker: Worker) -> None:
    with raising(engine_of(worker).pipeline.unet.conv_out, lambda: KeyError("a bug")):
        assert run(worker, controlnet=EDGES)["code"] == "INTERNAL_ERROR"
    assert "images" in run(worker, controlnet=EDGES)


def test_a_device_that_fails_while_a_failure_is_explained_ends_the_worker(worker: Worker) -> None:
    fault = torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)
    errors = [ValueError("no such thing"), fault]

    def fail(*_: Any, **__: Any) -> bool:
        raise errors.pop(0)

    with never(ControlNetConditioningEmbedding, fail):
        answer = run(worker, controlnet=EDGES)
    assert answer["code"] == "WORKER_BROKEN"
    assert not is_open(worker)


def test_the_settings_of_a_worker_are_tried(kits: Kits, odd: Path) -> None:
    with (
        pytest.raises(AssertionError, match="CONTROLNETS: odd"),
        a_worker(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"odd={odd}"),
    ):
        pytest.fail("it has started")
