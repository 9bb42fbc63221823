"""TRANSFORMER_NAME gives the model another denoiser: pictures equal plain diffusers' with `transformer=`."""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers import tiny_files, tiny_models, tiny_transformers
from tests.helpers.drawing import SMALL, assert_same, load_engine, picture
from tests.helpers.tiny_files import Kit
from worker.errors import ModelError, SettingsError, WorkerError
from worker.models import hub

PREFIX = "model.diffusion_model."
FAMILIES = {
    "flux": tiny_transformers.flux,
    "chroma": tiny_transformers.chroma,
    "sd3": tiny_transformers.sd3,
    "qwen": tiny_transformers.qwen,
    "z_image": tiny_files.z_image,
    "flux2": tiny_files.flux2,
}
# A tensor of each part that whole checkpoints have beside the denoiser.
REST = {
    "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight": torch.ones(77, 4),
    "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": torch.ones(4),
    "text_encoders.qwen3_4b.transformer.model.norm.weight": torch.ones(4),
    "first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
    "vae.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
}
# What guidance is called where it is not the call's guidance_scale.
CALLS: dict[str, dict[str, Any]] = {"qwen": {"true_cfg_scale": 7.5}}
MORE: dict[str, dict[str, Any]] = {"qwen": {"negative_prompt": "a star"}}


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny_files.convert_narrow_models(patch)
        yield


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kit]:
    root = tmp_path_factory.mktemp("bases")
    return {family: make_kit(family, root / family) for family in FAMILIES}


def make_kit(family: str, base: Path) -> Kit:
    pipeline: Any = FAMILIES[family]()
    tiny_models.save(pipeline, base)
    other = tiny_files.reseed(pipeline.transformer)
    for weights in (base / "transformer").glob("*.safetensors"):
        weights.write_bytes(b"these are not to be read")
    plain: Any = DiffusionPipeline.from_pretrained(base, transformer=other)
    return Kit(base, other, plain_picture(family, plain))


def plain_picture(family: str, pipeline: Any) -> Image:
    fields = {name: value for name, value in SMALL.items() if name != "seed"} | MORE.get(family, {})
    if family in CALLS:
        fields = {name: value for name, value in fields.items() if name != "guidance_scale"} | CALLS[family]
    drawn: Image = pipeline(**fields, generator=torch.Generator().manual_seed(SMALL["seed"])).images[0]
    return drawn


def drawn_with(kit: Kit, family: str, file: Path, **settings: str) -> Image:
    engine = load_engine(MODEL_NAME=str(kit.base), TRANSFORMER_NAME=str(file), **settings)
    return picture(engine, **MORE.get(family, {}))


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *((family, "original") for family in FAMILIES),
        *((family, "diffusers") for family in ("flux", "z_image")),
        *((family, "in a checkpoint") for family in ("flux", "chroma", "sd3", "qwen", "z_image")),
    ],
)
def test_the_picture_is_plain_diffusers_with_that_transformer(
    family: str, layout: str, kits: dict[str, Kit], tmp_path: Path
) -> None:
    kit = kits[family]
    weights = kit.transformer.state_dict() if layout == "diffusers" else tiny_files.original(kit.transformer)
    if layout == "in a checkpoint":  # beside text encoders and a VAE, which are not what is asked for
        weights = {f"{PREFIX}{name}": weight for name, weight in weights.items()} | REST
    file = tiny_files.write(weights, tmp_path / "file.safetensors")

    assert_same(drawn_with(kit, family, file), kit.drawn)


def test_the_log_says_which(kits: dict[str, Kit], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tiny_files.write(kits["flux"].transformer.state_dict(), tmp_path / "mine.safetensors")

    with caplog.at_level(logging.INFO, "worker"):
        load_engine(MODEL_NAME=str(kits["flux"].base), TRANSFORMER_NAME=str(file))

    assert "transformer mine: TRANSFORMER_NAME says so; it is an existing file" in caplog.text


def test_it_has_the_pipelines_number_format(kits: dict[str, Kit], tmp_path: Path) -> None:
    file = tiny_files.write(kits["flux"].transformer.state_dict(), tmp_path / "file.safetensors")
    engine = load_engine(MODEL_NAME=str(kits["flux"].base), TRANSFORMER_NAME=str(file), DTYPE="bfloat16")

    assert {weight.dtype for weight in engine.pipeline.transformer.parameters()} == {torch.bfloat16}


def test_the_bases_own_denoiser_is_not_downloaded(
    kits: dict[str, Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = shutil.copytree(kits["sd3"].base, tmp_path / "repository")
    tiny_files.write(kits["sd3"].transformer.state_dict(), repository / "tuned.safetensors")
    files = [str(file.relative_to(repository)) for file in repository.rglob("*") if file.is_file()]
    fetched: list[str] = []

    def fetch(_: str, *names: str, allow_patterns: Sequence[str] = (), **__: object) -> str:
        fetched.extend(file for file in files if any(fnmatch(file, one) for one in (*names, *allow_patterns)))
        return str(repository.joinpath(*names))

    monkeypatch.setattr(hub, "fetch_file", fetch)
    monkeypatch.setattr(hub, "fetch_snapshot", fetch)
    monkeypatch.setattr(hub, "_list_files", lambda *_: files)
    engine = load_engine(MODEL_NAME="org/name", TRANSFORMER_NAME="org/name/tuned.safetensors")

    assert_same(picture(engine), kits["sd3"].drawn)
    assert {"transformer/config.json", "vae/diffusion_pytorch_model.safetensors", "tuned.safetensors"} <= {*fetched}
    assert [file for file in fetched if file.startswith("transformer/")] == ["transformer/config.json"]


# What is refused.


def refused(kit: Kit, file: Path | str, error: type[WorkerError], *words: str, **settings: str) -> None:
    with pytest.raises(error) as caught:
        load_engine(**({"MODEL_NAME": str(kit.base), "TRANSFORMER_NAME": str(file)} | settings))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("TRANSFORMER_NAME: "), line
    for word in words:
        assert word in line, line


def changed(kit: Kit, path: Path, gone: str = "", **more: Tensor) -> Path:
    """The weights in diffusers' layout, without one, and with others."""
    weights = {name: weight for name, weight in kit.transformer.state_dict().items() if name != gone}
    return tiny_files.write(weights | {name.replace("__", "."): weight for name, weight in more.items()}, path)


def test_what_does_not_fit_is_named_by_its_tensor(kits: dict[str, Kit], tmp_path: Path) -> None:
    kit, path = kits["flux"], tmp_path / "file.safetensors"
    refused(kit, changed(kit, path, gone="proj_out.bias"), ModelError, "missing 1 weights", "proj_out.bias")
    wide = torch.ones(32, 384)  # as FLUX.1 Fill has it
    refused(kit, changed(kit, path, x_embedder__weight=wide), ModelError, "x_embedder.weight is 32 x 384", "32 x 64")
    more = {"transformer_blocks__1__attn__to_q__bias": torch.ones(32)}
    refused(kit, changed(kit, path, **more), ModelError, "has not", "transformer_blocks.1.attn.to_q.bias")


def test_an_original_file_that_lacks_a_tensor(kits: dict[str, Kit], tmp_path: Path) -> None:
    for family, gone in {
        "flux": "img_in.weight",
        "z_image": "x_embedder.weight",
        "sd3": "y_embedder.mlp.0.bias",
    }.items():
        weights = tiny_files.original(kits[family].transformer)
        del weights[gone]
        kind = type(kits[family].transformer).__name__
        refused(kits[family], tiny_files.write(weights, tmp_path / "gap.safetensors"), ModelError, "missing", kind)


@pytest.mark.parametrize(
    ("base", "file", "words"),
    [
        ("sd3", "flux", "is FLUX.1; MODEL_NAME has a SD3Transformer2DModel"),
        ("flux", "chroma", "is Chroma; MODEL_NAME has a FluxTransformer2DModel"),
        ("flux", "flux2", "is FLUX.2; MODEL_NAME has a FluxTransformer2DModel"),
        ("qwen", "z_image", "is Z-Image; MODEL_NAME has a QwenImageTransformer2DModel"),
    ],
)
def test_a_file_of_another_family_is_named(
    base: str, file: str, words: str, kits: dict[str, Kit], tmp_path: Path
) -> None:
    path = tiny_files.write(tiny_files.original(kits[file].transformer), tmp_path / "other.safetensors")

    refused(kits[base], path, ModelError, words)


@pytest.mark.parametrize("family", ["flux", "qwen", "z_image", "flux2"])
def test_a_file_that_is_no_denoiser_is_named(family: str, kits: dict[str, Kit], tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, tmp_path / "lora.safetensors")
    vae = kits["flux"].base / "vae" / "diffusion_pytorch_model.safetensors"

    refused(kits[family], tmp_path / "lora.safetensors", ModelError, "is a LoRA")
    refused(kits[family], vae, ModelError, "is one part of a model in diffusers layout")


def test_damaged_files_and_other_formats_are_named(kits: dict[str, Kit], tmp_path: Path) -> None:
    whole = tiny_files.write(kits["sd3"].transformer.state_dict(), tmp_path / "whole.safetensors").read_bytes()
    damage = {"damaged or incomplete": whole[:-5], "a web page": b"<!DOCTYPE html>", "empty": b""}
    for words, content in damage.items():
        (tmp_path / "damaged.safetensors").write_bytes(content)
        refused(kits["sd3"], tmp_path / "damaged.safetensors", ModelError, words)
    (tmp_path / "pickle.ckpt").write_bytes(b"PK\x03\x04")
    refused(kits["sd3"], tmp_path / "pickle.ckpt", ModelError, "can run code")
    refused(kits["sd3"], "/no/such/file.safetensors", ModelError, "/no/such/file.safetensors")
    refused(kits["sd3"], kits["sd3"].base / "vae", SettingsError, "name a file")


def test_numbers_that_are_none_are_named(kits: dict[str, Kit], tmp_path: Path) -> None:
    weights = {name: weight.clone() for name, weight in kits["sd3"].transformer.state_dict().items()}
    weights["proj_out.bias"][0] = torch.nan

    refused(kits["sd3"], tiny_files.write(weights, tmp_path / "x.safetensors"), ModelError, "proj_out.bias", "NaN")


def test_a_base_without_a_transformer(folders: dict[str, Path], kits: dict[str, Kit], tmp_path: Path) -> None:
    file = tiny_files.write(kits["sd3"].transformer.state_dict(), tmp_path / "file.safetensors")
    base = Kit(folders["sd1"], None, kits["sd3"].drawn)

    refused(base, file, SettingsError, "StableDiffusionPipeline", "no transformer")
    refused(base, file, SettingsError, "is a single file", MODEL_NAME=str(file))


def test_the_rest_of_the_base_must_be_whole(kits: dict[str, Kit], tmp_path: Path) -> None:
    base = shutil.copytree(kits["sd3"].base, tmp_path / "base")
    file = tiny_files.write(kits["sd3"].transformer.state_dict(), tmp_path / "file.safetensors")
    (base / "vae" / "diffusion_pytorch_model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"MODEL_NAME: .*vae holds no \.safetensors weights"):
        load_engine(MODEL_NAME=str(base), TRANSFORMER_NAME=str(file))


def test_a_config_that_asks_for_what_the_file_cannot_hold_is_named_soon(kits: dict[str, Kit], tmp_path: Path) -> None:
    base = shutil.copytree(kits["flux"].base, tmp_path / "base")
    file = tiny_files.write(kits["flux"].transformer.state_dict(), tmp_path / "file.safetensors")
    config = base / "transformer" / "config.json"
    entries = json.loads(config.read_text())
    for change, words in (
        ({"num_layers": 10**9}, "num_layers"),
        ({"num_layers": 900}, "many more layers"),
        ({"num_attention_heads": 3}, "linear_1.weight is 32 x 256; .* has 48 x 256"),
    ):
        config.write_text(json.dumps(entries | change))
        with pytest.raises(ModelError, match=words):
            load_engine(MODEL_NAME=str(base), TRANSFORMER_NAME=str(file))


# Eight bits.


def test_eight_bits_are_read_as_the_number_format_has_them(kits: dict[str, Kit], tmp_path: Path) -> None:
    kit = kits["flux"]
    small = {name: weight.to(torch.float8_e4m3fn) for name, weight in tiny_files.original(kit.transformer).items()}
    wide = {name: weight.float() for name, weight in small.items()}
    files = [tiny_files.write(one, tmp_path / f"{i}.safetensors", PREFIX) for i, one in enumerate((small, wide))]

    ours, theirs = (drawn_with(kit, "flux", file) for file in files)

    assert_same(ours, theirs)


@pytest.mark.parametrize("form", ["scale_weight", "weight_scale", "a scale for each row"])
def test_scales_are_multiplied_with(form: str, kits: dict[str, Kit], tmp_path: Path) -> None:
    kit = kits["sd3"]
    stored, meant = tiny_files.scale(tiny_files.original(kit.transformer), form)
    loaded = load_engine(
        MODEL_NAME=str(kit.base), TRANSFORMER_NAME=str(tiny_files.write(stored, tmp_path / "s.safetensors", PREFIX))
    )
    wanted = load_engine(
        MODEL_NAME=str(kit.base), TRANSFORMER_NAME=str(tiny_files.write(meant, tmp_path / "m.safetensors", PREFIX))
    )

    ours, theirs = (engine.pipeline.transformer.state_dict() for engine in (loaded, wanted))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not torch.equal(ours["context_embedder.weight"], kit.transformer.state_dict()["context_embedder.weight"])


def marked(text: bytes) -> Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"x_embedder.weight": torch.ones(32, 32, dtype=torch.uint8)}, ["x_embedder.weight is in U8", "float8"]),
        ({"x_embedder.weight_scale_2": torch.ones(1)}, ["x_embedder.weight_scale_2 is of nvfp4"]),
        ({"x_embedder.weight.absmax": torch.ones(1)}, ["bitsandbytes"]),
        ({"x_embedder.qweight": torch.ones(4, dtype=torch.int32)}, ["SVDQuant"]),
        ({"x_embedder.weight_scale": torch.ones(32, 4)}, ["x_embedder.weight_scale is F32 32x4"]),
        ({"x_embedder.weight_scale": torch.ones(1)}, ["x_embedder.weight_scale is F32 1 for F32"]),  # no fp8 weight
        ({"nowhere.weight_scale": torch.ones(1)}, ["for no weight"]),
        ({"x_embedder.comfy_quant": marked(b'{"format": "mxfp8"}')}, ["'mxfp8'", "float8_e4m3fn"]),
        ({"x_embedder.comfy_quant": marked(b"[" * 900)}, ["no JSON"]),
        ({"x_embedder.comfy_quant": marked(b"x" * 2000)}, ["a tensor of 2000"]),
    ],
)
def test_formats_that_are_not_understood_are_named(
    more: dict[str, Tensor], words: list[str], kits: dict[str, Kit], tmp_path: Path
) -> None:
    file = tiny_files.write(kits["flux"].transformer.state_dict() | more, tmp_path / "file.safetensors")

    refused(kits["flux"], file, ModelError, *words)


def test_what_the_file_says_beside_its_weights_is_no_weight(kits: dict[str, Kit], tmp_path: Path) -> None:
    file = tiny_files.write(kits["sd3"].transformer.state_dict(), tmp_path / "file.safetensors")
    notes = {
        "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "proj_out.scale_input": torch.ones(1),
        "proj_out.comfy_quant": marked(b'{"format": "float8_e4m3fn"}'),
    }
    tiny_files.write(load_file(file) | notes, file)

    assert_same(drawn_with(kits["sd3"], "sd3", file), kits["sd3"].drawn)
