"""OFFLOAD on a GPU: wherever the weights wait, jobs of every kind, one after the other, draw what they draw where all
weights stay on the device; and after a fault in mid-drawing, too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

from tests.helpers import tiny_glm, tiny_models
from tests.helpers.drawing import SMALL, draw, load_engine, scene, uri
from tests.helpers.every_kind import IMAGE, JOBS, Pictures, drawn, equipped
from tests.helpers.faults import a_worker, engine_of, last_layer, overflowing, raising, run
from tests.helpers.tiny_addons import FAMILIES, Kits, denoiser
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.plan import make_plan

OFFLOADS = ("model", "group")


@pytest.fixture(scope="module")
def resident(kits: Kits) -> Callable[[str], Engine]:
    """Family -> its engine whose weights stay on the device, with all there is beside it."""
    engines: dict[str, Engine] = {}

    def engine(family: str) -> Engine:
        if family not in engines:
            engines[family] = equipped(kits, family, OFFLOAD="none")
        return engines[family]

    return engine


def off_by(ours: Pictures, theirs: Pictures) -> float:
    """How far the pictures are from each other where they are farthest, of 255."""
    assert theirs[0].std() > 1, "an empty picture proves nothing"
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


def assert_waiting(engine: Engine) -> None:
    """None of the denoiser's own weights are on the device."""
    own = [one for name, one in denoiser(engine.pipeline).named_parameters() if "lora" not in name]
    assert {weight.device.type for weight in own} == {"cpu"}


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_job(family: str, offload: str, kits: Kits, resident: Callable[[str], Engine]) -> None:
    engine, whole = equipped(kits, family, OFFLOAD=offload), resident(family)

    for job in JOBS:
        assert off_by(drawn(engine, **job), drawn(whole, **job)) == 0, job
        assert_waiting(engine)


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_prompts_that_diffusers_does_not_encode(family: str, offload: str, kits: Kits) -> None:
    words = kits[family].settings("words")
    engine, whole = load_engine(**words, OFFLOAD=offload), load_engine(**words, OFFLOAD="none")

    for job in ({}, {"prompt": "a (red:1.3) wobble, " * 20, "negative_prompt": "(blue:1.2)"}, {"clip_skip": 1}, {}):
        assert off_by(drawn(engine, **job), drawn(whole, **job)) == 0, job
        assert_waiting(engine)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_previews(offload: str) -> None:
    """With the embedded model: random weights know no colours. The encoder is cast while the map to them is fitted."""
    ours, theirs = previews(load_engine(OFFLOAD=offload)), previews(load_engine(OFFLOAD="none"))

    assert len(ours) == len(theirs) > 0
    assert off_by(ours, theirs) == 0


def previews(engine: Engine) -> Pictures:
    """What is seen of a job in the making."""
    seen: list[Image | None] = []
    request = parse({"input": {**SMALL, "preview": True}}, engine.capabilities)[0]
    list(
        generate(
            engine,
            make_plan(request),
            lambda _, __, make_preview: seen.append(make_preview()) if make_preview else None,
        )
    )
    return [np.asarray(one, np.float64) for one in seen if one is not None]


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_language_model_that_looks_at_a_picture(offload: str, tmp_path: Path) -> None:
    """Of GLM-Image, whose pipeline calls more of it than its forward; before and after a job that shows it none."""
    model = {"MODEL_NAME": str(tiny_models.save(tiny_glm.glm(), tmp_path / "model"))}
    engine, whole = load_engine(**model, OFFLOAD=offload), load_engine(**model, OFFLOAD="none")

    for job in ({}, {"image": uri(scene(96, 64))}, {}, {"image": uri(scene(64, 128))}):
        assert off_by(drawn(engine, **job), drawn(whole, **job)) == 0, job
        assert_waiting(engine)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_refiner(offload: str, kits: Kits, tmp_path: Path) -> None:
    refiner = tiny_models.save(tiny_models.sdxl_refiner(), tmp_path / "refiner")
    both = {"MODEL_NAME": str(kits["sdxl"].model), "REFINER_NAME": str(refiner)}
    engine, whole = load_engine(**both, OFFLOAD=offload), load_engine(**both, OFFLOAD="none")

    for job in ({}, {"refiner": {"strength": 0.4}}, {"image": IMAGE}, {}):
        assert off_by(drawn(engine, **job), drawn(whole, **job)) == 0, job
        assert_waiting(engine)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_safety_checker(offload: str, tmp_path: Path) -> None:
    model = {"MODEL_NAME": str(tiny_models.save(tiny_models.sd1(safety_checker=True), tmp_path / "model"))}
    engine, whole = load_engine(**model, OFFLOAD=offload), load_engine(**model, OFFLOAD="none")

    ours, theirs = draw(engine), draw(whole)

    assert [one.nsfw for one in ours] == [one.nsfw for one in theirs]
    assert ours[0].image.tobytes() == theirs[0].image.tobytes()
    assert_waiting(engine)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_decoder_that_overflows_decodes_in_float32(offload: str, kits: Kits) -> None:
    with a_worker(**kits["sd1"].settings(), OFFLOAD=offload) as worker:
        before = run(worker)
        with overflowing(engine_of(worker).pipeline.vae.decoder.up_blocks[0].resnets[0].conv1) as fault:
            answer = run(worker)

        assert fault.happened == 2, "in float16 and in float32"
        assert "error" not in answer and answer["warnings"] == []
        assert run(worker)["images"] == before["images"]
        assert_waiting(engine_of(worker))


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["text encoder", "denoiser", "decoder"])
def test_a_bug_in_mid_drawing(place: str, family: str, offload: str, kits: Kits) -> None:
    """Stable Diffusion XL's decoder fails while it is cast to float32."""
    with a_worker(**kits[family].settings(), OFFLOAD=offload) as worker:
        before = run(worker)
        with raising(last_layer(engine_of(worker), place), lambda: KeyError("a bug")):
            failed = run(worker)
        with raising(last_layer(engine_of(worker), place), lambda: torch.OutOfMemoryError("CUDA out of memory")):
            leaner = run(worker)

        assert failed["code"] == "INTERNAL_ERROR" and "refresh_worker" not in failed
        assert [warning.partition(";")[0] for warning in leaner["warnings"]] == ["memory ran out"]
        assert run(worker)["images"] == before["images"]
        assert_waiting(engine_of(worker))
