"""TRANSFORMER_NAME takes GGUF files: pictures equal those of plain diffusers with the same file."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, GGUFQuantizationConfig
from diffusers.quantizers.gguf.utils import GGUFParameter
from PIL.Image import Image

from tests.helpers import tiny_files, tiny_models, tiny_transformers
from tests.helpers.drawing import SMALL, assert_same, load_engine, picture
from worker.engine.engine import Engine
from worker.engine.load.gguf_file import unpack
from worker.engine.model_trial import try_model
from worker.errors import ModelError

FAMILIES = {
    "flux": tiny_transformers.flux,
    "sd3": tiny_transformers.sd3,
    "z_image": tiny_files.z_image,
}


@dataclass(frozen=True)
class Kit:
    """A base model, and other weights for its denoiser."""

    base: Path
    transformer: Any


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny_files.convert_narrow_models(patch)
        yield


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kit]:
    root = tmp_path_factory.mktemp("bases")
    made: dict[str, Any] = {family: make() for family, make in FAMILIES.items()}
    return {
        family: Kit(tiny_models.save(pipeline, root / family), tiny_files.reseed(pipeline.transformer))
        for family, pipeline in made.items()
    }


def load_with(kit: Kit, file: Path, **settings: str) -> Engine:
    return load_engine(MODEL_NAME=str(kit.base), TRANSFORMER_NAME=str(file), **settings)


def plain_picture(kit: Kit, transformer: Any) -> Image:
    plain: Any = DiffusionPipeline.from_pretrained(kit.base, transformer=transformer)
    fields = {name: value for name, value in SMALL.items() if name != "seed"}
    drawn: Image = plain(**fields, generator=torch.Generator().manual_seed(SMALL["seed"])).images[0]
    return drawn


@pytest.mark.parametrize(
    ("family", "packing"),
    [("flux", "Q8_0"), ("sd3", "Q4_0"), ("z_image", "Q5_1")],
)
def test_the_picture_is_plain_diffusers_with_that_file(
    family: str, packing: str, kits: dict[str, Kit], tmp_path: Path
) -> None:
    kit = kits[family]
    file = tiny_files.write_gguf(tiny_files.original(kit.transformer), tmp_path / "file.gguf", packing)
    theirs = type(kit.transformer).from_single_file(
        str(file),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=str(kit.base),
        subfolder="transformer",
        dtype=torch.float32,
    )
    engine = load_with(kit, file)

    assert_same(picture(engine), plain_picture(kit, theirs))
    packed = [weight for weight in engine.pipeline.transformer.parameters() if isinstance(weight, GGUFParameter)]
    assert len(packed) > 5


@pytest.mark.parametrize(("packing", "prefix"), [("BF16", ""), ("F16", "model.diffusion_model.")])
def test_sixteen_bits_are_read_as_they_are(packing: str, prefix: str, kits: dict[str, Kit], tmp_path: Path) -> None:
    kit, kind = kits["sd3"], {"BF16": torch.bfloat16, "F16": torch.float16}[packing]
    weights = tiny_files.original(kit.transformer)
    file = tiny_files.write_gguf(weights, tmp_path / "file.gguf", packing, prefix, tokens=True)
    rounded = {name: weight.to(kind).float() if weight.ndim > 1 else weight for name, weight in weights.items()}
    same = tiny_files.write(rounded, tmp_path / "same.safetensors")

    ours, theirs = (load_with(kit, one).pipeline.transformer.state_dict() for one in (file, same))

    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_no_linear_layer_holds_is_unpacked(kits: dict[str, Kit], tmp_path: Path) -> None:
    """Z-Image's padding tokens are parameters of the model itself, and files have them packed."""
    kit = kits["z_image"]
    weights = tiny_files.original(kit.transformer)
    loaded = load_with(kit, tiny_files.write_gguf(weights, tmp_path / "file.gguf", tokens=True)).pipeline.transformer

    assert loaded.x_pad_token.dtype == torch.float32
    assert torch.allclose(loaded.x_pad_token, weights["x_pad_token"], atol=0.01)
    assert not torch.equal(loaded.x_pad_token, weights["x_pad_token"]), "eight bits are not exact"


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_256_are_unpacked_as_by_the_formats_own_package(kind: str) -> None:
    """It has no packer for them; any bytes whose scales are numbers are such a block."""
    packing = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[packing][1]
    blocks = np.random.default_rng(0).integers(0, 256, (600, size), dtype=np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = gguf.quants.dequantize(blocks, packing)
    largest = np.abs(expected).max(axis=1)
    usual = largest < 1_000  # NaN is not; diffusers computes in float16

    ours = unpack(GGUFParameter(torch.from_numpy(blocks[usual]), quant_type=packing))

    assert usual.sum() > 100
    assert (np.abs(ours.float().numpy() - expected[usual]).max(axis=1) <= 2e-3 * largest[usual]).all()


def test_a_scale_that_is_no_number_is_named(kits: dict[str, Kit], tmp_path: Path) -> None:
    kit = kits["flux"]
    weights = tiny_files.original(kit.transformer)
    name = next(name for name in weights if name.endswith("img_mlp.0.weight"))
    weights[name] = weights[name].clone().index_fill(0, torch.tensor([0]), torch.nan)

    engine = load_with(kit, tiny_files.write_gguf(weights, tmp_path / "file.gguf", "Q8_0"))
    with pytest.raises(ModelError, match=r"ff\.net.* of transformer holds NaN or infinity"):
        try_model(engine)


def test_the_log_says_what_it_is(kits: dict[str, Kit], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tiny_files.original(kits["flux"].transformer)
    file = tiny_files.write_gguf(weights, tmp_path / "mine-Q4_0.gguf", "Q4_0")

    with caplog.at_level(logging.INFO, "worker"):
        engine = load_with(kits["flux"], file, DTYPE="bfloat16")

    assert "transformer mine-Q4_0: TRANSFORMER_NAME says so" in caplog.text
    assert " Q4_0" in caplog.text
    kinds = {weight.dtype for weight in engine.pipeline.transformer.parameters()}
    assert kinds == {torch.uint8, torch.bfloat16}


def test_what_does_not_fit_is_named_by_its_tensor(kits: dict[str, Kit], tmp_path: Path) -> None:
    weights = tiny_files.original(kits["sd3"].transformer)
    wide = weights | {"context_embedder.weight": torch.ones(32, 128)}
    gap = {name: weight for name, weight in weights.items() if name != "context_embedder.bias"}
    other = tiny_files.original(kits["flux"].transformer)
    for content, words in ((wide, "32 x 128"), (gap, "context_embedder.bias"), (other, "is FLUX.1")):
        with pytest.raises(ModelError, match=f"TRANSFORMER_NAME: .*{words}"):
            load_with(kits["sd3"], tiny_files.write_gguf(content, tmp_path / "file.gguf"))


@pytest.mark.parametrize("setting", ["MODEL_NAME", "VAE_NAME", "REFINER_NAME"])
def test_other_settings_take_no_gguf(
    setting: str, kits: dict[str, Kit], folders: dict[str, Path], tmp_path: Path
) -> None:
    file = tiny_files.write_gguf({"x": torch.ones(4)}, tmp_path / "file.gguf")

    with pytest.raises(ModelError, match=rf"{setting}: .*file\.gguf is GGUF, .* name it in TRANSFORMER_NAME"):
        load_engine(**{"MODEL_NAME": str(folders["sdxl"]), setting: str(file)})
