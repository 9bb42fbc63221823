"""LoRAs of Z-Image, FLUX.2, Qwen-Image and Chroma act under every name that trainers give their layers."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ChromaPipeline,
    ChromaTransformer2DModel,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from PIL import ImageChops, ImageStat
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.helpers import tiny_files, tiny_models, tiny_transformers
from tests.helpers.drawing import draw, load_engine, picture
from worker.engine.adapters.lora_targets import Targets

KLEIN = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
PUBLISHED: dict[str, tuple[Any, Callable[[], Any]]] = {
    "z_image": (ZImagePipeline, ZImageTransformer2DModel),
    "flux2": (Flux2KleinPipeline, lambda: Flux2Transformer2DModel(**KLEIN, guidance_embeds=False)),
    "qwen": (QwenImagePipeline, QwenImageTransformer2DModel),
    "chroma": (ChromaPipeline, ChromaTransformer2DModel),
}
# How a layer may be called; {} has dots, {_} has underscores.
OWN = ("transformer.{}", "diffusion_model.{}", "{}", "base_model.model.{}", "lora_unet_{_}", "lycoris_{_}")
ORIGINAL = ("diffusion_model.{}", "{}", "base_model.model.{}", "lora_unet_{_}", "lora_transformer_{_}")
# What diffusers does not know under kohya's names, and of Chroma under no original name.
UNKNOWN = {
    "z_image": ("x_embedder", "final_layer"),
    "flux2": ("stream_modulation", "final_layer_adaLN"),
    "qwen": (),
    "chroma": (),
}


def spell(form: str, layer: str) -> str:
    return form.replace("{_}", layer.replace(".", "_")).replace("{}", layer)


def rows_of(weights: dict[str, Tensor]) -> dict[str, int]:
    """Layer -> its outputs."""
    matrices = {name: weight for name, weight in weights.items() if weight.ndim == 2 and name.endswith(".weight")}
    return {name.removesuffix(".weight"): weight.shape[0] for name, weight in matrices.items()}


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """Family, its pipeline without any weights, and its transformer as large as the published one."""
    kind, make = PUBLISHED[request.param]
    with torch.device("meta"):
        transformer = make()
    parts = {name: None for name in inspect.signature(kind.__init__).parameters if name not in ("self", "is_distilled")}
    return request.param, kind(**{**parts, "transformer": transformer}), transformer


def test_every_layer_is_found_under_diffusers_names(published: tuple[str, Any, Any]) -> None:
    _, pipeline, transformer = published
    for form in OWN:
        targets = Targets(pipeline)
        found = targets.find({spell(form, name): rows for name, rows in rows_of(transformer.state_dict()).items()})
        assert {("transformer", one.layer) for each in found.values() for one in each} == targets.modules.keys(), form


def test_every_layer_is_found_under_its_trainers_names(published: tuple[str, Any, Any]) -> None:
    family, pipeline, transformer = published
    with torch.device("meta"):
        original = rows_of(tiny_files.original(transformer))
    known = {name: rows for name, rows in original.items() if not name.startswith("distilled_guidance_layer.layers.")}
    for form in ORIGINAL:
        rows = {spell(form, name): count for name, count in known.items()}
        found = Targets(pipeline).find(rows)
        unknown = {name for name in rows if "{_}" in form and any(part in name for part in UNKNOWN[family])}
        assert found.keys() == rows.keys() - unknown, form
        for name, targets in found.items():
            taken = [torch.arange(rows[name]) if one.rows is None else one.rows for one in targets]
            assert torch.cat(taken).sort().values.equal(torch.arange(rows[name])), "each output once"


# What is drawn.

FAMILIES = {"z_image": tiny_files.z_image, "flux2": tiny_files.flux2, "qwen": tiny_transformers.qwen}


def train(weights: dict[str, Tensor], form: str, joined: Path, merged: Path, dora: bool = False) -> None:
    """Write a LoRA of every matrix, and the weights with it added to them.

    Args:
        dora: with the magnitudes that the sums have, so that it adds the same.
    """
    torch.manual_seed(3)
    lora, summed = {}, dict(weights)
    for name in rows_of(weights):
        weight = weights[f"{name}.weight"]
        down, up = torch.randn(2, weight.shape[1]) * 0.1, torch.randn(weight.shape[0], 2) * 0.1
        layer = spell(form, name)
        lora |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
        summed[f"{name}.weight"] = weight + up @ down
        if dora:
            lora[f"{layer}.dora_scale"] = (weight + up @ down).norm(dim=1, keepdim=True)
    save_file({name: factor.contiguous() for name, factor in lora.items()}, joined)
    tiny_files.write(summed, merged)


def difference(one: Image, other: Image) -> int:
    """The most that a colour of a pixel differs by."""
    return max(high for _, high in ImageStat.Stat(ImageChops.difference(one, other)).extrema)


@pytest.mark.parametrize(("family", "form"), [("z_image", "{}"), ("flux2", "{}"), ("qwen", "diffusion_model.{}")])
def test_the_picture_is_that_of_weights_with_it_added(family: str, form: str, tmp_path: Path) -> None:
    pipeline: Any = FAMILIES[family]()
    base, transformer = tiny_models.save(pipeline, tmp_path / "base"), tiny_files.reseed(pipeline.transformer)
    (tmp_path / "loras").mkdir()
    train(tiny_files.original(transformer), form, tmp_path / "loras" / "mine.safetensors", tmp_path / "sum.safetensors")
    own = tiny_files.write(tiny_files.original(transformer), tmp_path / "own.safetensors")
    engine = load_engine(MODEL_NAME=str(base), TRANSFORMER_NAME=str(own), LORA_DIR=str(tmp_path / "loras"))
    summed = load_engine(MODEL_NAME=str(base), TRANSFORMER_NAME=str(tmp_path / "sum.safetensors"))

    (drawn,) = draw(engine, loras=["mine"])

    wanted = picture(summed)
    assert difference(drawn.image, wanted) <= 2, "sums are rounded in another order"
    assert difference(picture(engine), wanted) > 10, "and without it another picture is drawn"


@pytest.mark.parametrize("dora", [False, True])
def test_beside_packed_weights_too(dora: bool, tmp_path: Path) -> None:
    pipeline = tiny_files.z_image()
    base, transformer = tiny_models.save(pipeline, tmp_path / "base"), tiny_files.reseed(pipeline.transformer)
    weights = {name: weight.half().float() for name, weight in tiny_files.original(transformer).items()}
    (tmp_path / "loras").mkdir()
    form = "transformer.{}" if dora else "diffusion_model.{}"
    if dora:  # of layers that stay one each
        weights = {name: weight.half().float() for name, weight in transformer.state_dict().items()}
    train(weights, form, tmp_path / "loras" / "mine.safetensors", tmp_path / "sum.safetensors", dora)
    packed = tiny_files.write_gguf(weights, tmp_path / "packed.gguf", "Q8_0")
    engine = load_engine(MODEL_NAME=str(base), TRANSFORMER_NAME=str(packed), LORA_DIR=str(tmp_path / "loras"))
    summed = load_engine(MODEL_NAME=str(base), TRANSFORMER_NAME=str(tmp_path / "sum.safetensors"))
    without = picture(engine)

    drawn, again = picture(engine, loras=["mine"]), picture(engine)

    assert difference(drawn, picture(summed)) < difference(without, picture(summed)) / 3, "eight bits are not exact"
    assert again.tobytes() == without.tobytes(), "nothing of it stays"
