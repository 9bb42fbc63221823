"""QUANTIZE on a GPU, with every OFFLOAD that goes with it: pictures near the whole model's, and weights that move."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import tiny_models
import tiny_transformers
import torch

from worker.engine.loading import Engine, load
from worker.engine.memory import Plan, make_plan
from worker.settings import Settings

bitsandbytes = pytest.importorskip("bitsandbytes")

KINDS = {"8bit": bitsandbytes.nn.Int8Params, "4bit": bitsandbytes.nn.Params4bit}
MAKE: dict[str, Callable[[], Any]] = {
    "sdxl": tiny_models.sdxl,
    "sd3": tiny_transformers.sd3,
    "flux": tiny_transformers.flux,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whole")
    return {family: tiny_models.save(make(), root / family) for family, make in MAKE.items()}


def engine(folder: Path, **settings: Any) -> Engine:
    return load(Settings(model_name=str(folder), **settings))


def drawn(loaded: Engine) -> numpy.ndarray:
    """A picture as numbers from 0 to 1."""
    picture: numpy.ndarray = loaded.pipeline(
        "a red square",
        width=64,
        height=64,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    return picture


def denoiser(loaded: Engine) -> torch.nn.Module:
    found: torch.nn.Module = getattr(loaded.pipeline, "unet", None) or loaded.pipeline.transformer
    return found


@pytest.mark.parametrize(
    ("bits", "offload", "least"),
    [("8bit", "none", 30.0), ("4bit", "none", 20.0), ("4bit", "model", 20.0), ("4bit", "group", 20.0)],
)
@pytest.mark.parametrize("family", MAKE)
def test_pictures_hardly_differ(family: str, bits: Any, offload: Any, least: float, folders: dict[str, Path]) -> None:
    whole = drawn(engine(folders[family]))
    fewer = engine(folders[family], quantize=bits, offload=offload)

    first, second = drawn(fewer), drawn(fewer)

    assert numpy.isfinite(first).all()
    assert (first == second).all()
    decibels = -10 * math.log10(numpy.square(first - whole).mean())
    print(f"\n{family} in {bits}, offload {offload}: {decibels:.1f} dB")
    assert decibels > least
    quantised = [weight for weight in denoiser(fewer).parameters() if isinstance(weight, KINDS[bits])]
    assert quantised
    assert {weight.device.type for weight in quantised} == {"cuda" if offload == "none" else "cpu"}


@pytest.mark.parametrize("bits", KINDS)
def test_what_loading_left_on_the_device_counts_as_free(
    bits: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.memory.free_memory", lambda: 10**9)
    planned: list[int] = []

    def plan(sizes: Any, pixels: int, free: int, *others: Any) -> Plan:
        planned.append(free)
        return make_plan(sizes, pixels, free, *others)

    monkeypatch.setattr("worker.engine.memory.make_plan", plan)
    engine(folders["flux"], quantize=bits)

    assert planned[0] > 10**9
