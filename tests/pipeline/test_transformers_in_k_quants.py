"""TRANSFORMER_NAME takes GGUF files in blocks of 256 numbers, as FLUX is traded: through the handler function, pictures
equal those of plain diffusers with the same file, and are like those of the weights before they were packed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel, GGUFQuantizationConfig
from diffusers.quantizers.gguf.utils import GGUFParameter
from PIL.Image import Image

from tests.helpers import k_quants, tiny_files, tiny_models, tiny_transformers
from tests.helpers.drawing import SMALL, assert_same, decibels
from tests.helpers.faults import a_worker
from tests.helpers.through_handler import drawn
from tests.helpers.tiny_files import Kit

WIDTH = 256
# Seen were 30.2, 38.2 and 41.8; the picture of the base's own weights was 15.6 from it.
LEAST_DECIBELS = {"Q4_K": 27.0, "Q5_K": 35.0, "Q6_K": 38.0}


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny_files.convert_narrow_models(patch, WIDTH)
        yield


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    made = tiny_transformers.flux(head=128, axes=(16, 56, 56))
    base = tiny_models.save(made, tmp_path_factory.mktemp("bases") / "flux")
    other = tiny_files.reseed(made.transformer)
    return Kit(base, other, plain_picture(base, other))


def plain_picture(base: Path, transformer: Any) -> Image:
    plain: Any = DiffusionPipeline.from_pretrained(base, transformer=transformer)
    fields = {name: value for name, value in SMALL.items() if name != "seed"}
    return plain(**fields, generator=torch.Generator().manual_seed(SMALL["seed"])).images[0]


@pytest.mark.parametrize("packing", ["Q4_K", "Q5_K", "Q6_K"])
def test_the_picture_is_plain_diffusers_with_that_file(packing: str, kit: Kit, tmp_path: Path) -> None:
    file = tiny_files.write_gguf(tiny_files.original(kit.transformer), tmp_path / "file.gguf", packing)
    theirs = FluxTransformer2DModel.from_single_file(
        str(file),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=str(kit.base),
        subfolder="transformer",
        dtype=torch.float32,
    )

    packed = [weight for weight in theirs.parameters() if isinstance(weight, GGUFParameter)]
    assert sum(weight.quant_type.name == packing for weight in packed) > 10

    with a_worker(MODEL_NAME=str(kit.base), TRANSFORMER_NAME=str(file)) as worker:
        ours = drawn(worker, SMALL)

    assert_same(ours, plain_picture(kit.base, theirs))
    assert decibels(ours, kit.drawn) > LEAST_DECIBELS[packing]


@pytest.mark.parametrize("packing", LEAST_DECIBELS)
def test_the_blocks_here_are_those_of_the_format(packing: str) -> None:
    """The format's own package, which packs none, finds the numbers in them, as far as so few bits can say them."""
    numbers = np.random.default_rng(0).normal(size=(16, 2 * k_quants.BLOCK)).astype(np.float32)

    found = gguf.quants.dequantize(k_quants.pack(numbers, packing), gguf.GGMLQuantizationType[packing])

    steps = {"Q4_K": 15, "Q5_K": 31, "Q6_K": 62}[packing]
    assert np.abs(found - numbers).max() <= 1.5 * np.abs(numbers).max() * 2 / steps
    assert np.abs(found - numbers).mean() <= np.abs(numbers).max() / steps
