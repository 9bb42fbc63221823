"""What docs/models.md says of sizes is counted right: as published files have it, and as QUANTIZE makes it."""

import inspect
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from diffusers.quantizers.bitsandbytes import bnb_quantizer

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.drawing import load_engine
from tools.models import POOLS, find_fit, predict_sizes
from tools.published import PUBLISHED, Published
from worker.engine.memory import weight_sizes
from worker.engine.pipelines import modules
from worker.models.families import FAMILIES

# Of the published files, as their own headers say.
WEIGHTS = {
    ("FLUX.1", "transformer"): 11_901_408_320,
    ("FLUX.1", "text_encoder_2"): 4_762_310_656,
    ("Stable Diffusion XL", "unet"): 2_567_463_684,
    ("Stable Diffusion 1.5", "unet"): 859_520_964,
}
# Of the published files in 16 bits, as the hub lists them.
GIGABYTES = {
    ("Qwen-Image 2.1", "text_encoder"): 17.53,
    ("Qwen-Image 2.1", "vae"): 0.676,
    ("ERNIE-Image", "transformer"): 16.1,
    ("ERNIE-Image", "text_encoder"): 7.7,
    ("ERNIE-Image", "pe"): 6.9,
    ("ERNIE-Image", "vae"): 0.168,
    ("HunyuanImage 2.1", "transformer"): 34.9,
    ("HunyuanImage 2.1", "text_encoder_2"): 0.4385,
    ("HunyuanImage 2.1", "vae"): 0.811,
    ("Sana", "transformer"): 3.21,
    ("Sana", "text_encoder"): 5.23,
    ("Sana", "vae"): 0.625,
}
# Of transformers, as those say who made them.
BILLIONS = {
    "Qwen-Image": 20,
    "Qwen-Image 2.1": 7,
    "Qwen-Image-Layered": 20,
    "Z-Image": 6,
    "Krea 2": 12.9,
    "ERNIE-Image": 8,
    "LongCat-Image": 6,
    "HunyuanImage 2.1": 17,
    "Kandinsky 5": 6,
    "Sana": 1.6,
}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let diffusers and the worker quantise without a GPU."""
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
        monkeypatch.setattr(quantizer, "update_device_map", lambda *_: {"": "cpu"})
    monkeypatch.setattr("worker.engine.load.loader.check_quantize", lambda *_: None)
    return


def count_weights(title: str, part: str) -> int:
    """Of a part of the model of this title."""
    make = next(one for one in PUBLISHED if one.title == title).parts[part]
    with torch.device("meta"):
        built = make()
    return sum(weight.numel() for weight in built.parameters())


@pytest.mark.parametrize(("title", "part"), WEIGHTS)
def test_a_published_part_has_as_many_weights_as_its_file(title: str, part: str) -> None:
    assert count_weights(title, part) == WEIGHTS[title, part]


@pytest.mark.parametrize(("title", "part"), GIGABYTES)
def test_a_published_part_is_as_large_as_its_file(title: str, part: str) -> None:
    assert 2 * count_weights(title, part) / 1e9 == pytest.approx(GIGABYTES[title, part], rel=0.01)


@pytest.mark.parametrize("title", BILLIONS)
def test_a_transformer_is_as_large_as_it_is_said_to_be(title: str) -> None:
    assert count_weights(title, "transformer") / 1e9 == pytest.approx(BILLIONS[title], rel=0.05)


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.title)
def test_every_checkpoint_has_a_row_of_its_pipeline(model: Published) -> None:
    rows = {row.name: row for row in FAMILIES}
    for checkpoint in model.checkpoints:
        takes = inspect.signature(getattr(diffusers, rows[checkpoint.family].pipeline)).parameters
        assert set(model.parts) <= set(takes), checkpoint.repository


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
    slower = [way + tiles for way in ("whole", "by component", "by layer") for tiles in ("", ", tiles")] + ["no"]
    for billions in range(1, 60, 3):
        sizes = {"transformer": billions * 10**9, "text_encoder": billions * 10**9 // 2, "vae": 10**8}
        for kind in ("none", "8bit", "4bit", "fp8"):
            told = [slower.index(find_fit(sizes, pool, kind, 1024 * 1024).describe()) for pool in POOLS]  # type: ignore[arg-type]
            assert told == sorted(told, reverse=True)
