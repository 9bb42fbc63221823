"""What docs/models.md says of sizes is counted right: as published files have it, and as QUANTIZE makes it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.quantizers.bitsandbytes import bnb_quantizer

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.drawing import load_engine
from tools.models import POOLS, find_fit, predict_sizes
from tools.published import PUBLISHED
from worker.engine.memory import weight_sizes
from worker.engine.pipelines import modules

# Of the published files, as their own headers say.
WEIGHTS = {
    ("FLUX.1", "transformer"): 11_901_408_320,
    ("FLUX.1", "text_encoder_2"): 4_762_310_656,
    ("Stable Diffusion XL", "unet"): 2_567_463_684,
    ("Stable Diffusion 1.5", "unet"): 859_520_964,
}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let diffusers and the worker quantise without a GPU."""
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
        monkeypatch.setattr(quantizer, "update_device_map", lambda *_: {"": "cpu"})
    monkeypatch.setattr("worker.engine.load.loader.check_quantize", lambda *_: None)
    return


@pytest.mark.parametrize(("title", "part"), WEIGHTS)
def test_a_published_part_has_as_many_weights_as_its_file(title: str, part: str) -> None:
    make = next(one for one in PUBLISHED if one.title == title).parts[part]
    with torch.device("meta"):
        built = make()
    assert sum(weight.numel() for weight in built.parameters()) == WEIGHTS[title, part]


@pytest.mark.parametrize(
    ("family", "kinds"),
    [("flux", ("fp8", "8bit", "4bit")), ("qwen", ("fp8", "8bit", "4bit")), ("sdxl", ("8bit", "4bit"))],
)
def test_sizes_are_those_that_loading_makes(family: str, kinds: tuple[Any, ...], tmp_path_factory: Any) -> None:
    make = getattr(tiny_transformers, family, None) or getattr(tiny_models, family)
    folder = tiny_models.save(make(), tmp_path_factory.mktemp("sizes") / family)
    whole = modules(load_engine(MODEL_NAME=str(folder)).pipeline)

    for kind in kinds:
        made = weight_sizes([load_engine(MODEL_NAME=str(folder), QUANTIZE=kind).pipeline])
        assert predict_sizes(whole, kind, width=4) == pytest.approx(made, rel=0.01), kind


def test_a_larger_gpu_never_takes_a_slower_plan() -> None:
    slower = ["all", "all, tiles", "parts", "parts, tiles", "layers", "layers, tiles", "no"]
    for billions in range(1, 60, 3):
        sizes = {"transformer": billions * 10**9, "text_encoder": billions * 10**9 // 2, "vae": 10**8}
        for kind in ("none", "8bit", "4bit", "fp8"):
            told = [slower.index(find_fit(sizes, pool, kind, 1024 * 1024).describe()) for pool in POOLS]  # type: ignore[arg-type]
            assert told == sorted(told, reverse=True)
