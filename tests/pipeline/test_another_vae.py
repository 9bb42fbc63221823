"""VAE_NAME gives the model another VAE: pictures equal plain diffusers' with `vae=`; what does not fit is refused."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, StableDiffusionXLPipeline
from PIL.Image import Image
from safetensors.torch import load_file, save_file

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.drawing import SMALL, assert_same, load_engine, picture
from tests.helpers.original_names import vae_weights
from tests.helpers.tiny_addons import write
from worker.errors import ModelError, SettingsError, WorkerError

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = ("file.safetensors", "once.safetensors", "original.safetensors", "inside.safetensors")


@pytest.fixture(scope="module")
def vaes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A VAE's own folder, a whole model's, the same in one file, and a tiny VAE of another class.

    The files: in diffusers' layout, also with the names that its attention had once; in the original layout, also below
    the names that it has in a whole checkpoint.
    """
    root = tmp_path_factory.mktemp("vaes")
    other = tiny_models.sdxl()
    torch.manual_seed(5)
    other.vae = AutoencoderKL.from_config(other.vae.config)
    other.save_pretrained(root / "model")
    shutil.copytree(root / "model" / "vae", root / "vae")
    shutil.copy(root / "vae" / WEIGHTS, root / "file.safetensors")
    weights, original = load_file(root / "file.safetensors"), vae_weights(other.vae)
    write({_once(name): weight for name, weight in weights.items()}, root / "once.safetensors")
    write(original, root / "original.safetensors")
    write({f"first_stage_model.{name}": weight for name, weight in original.items()}, root / "inside.safetensors")
    torch.manual_seed(5)
    small = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    torch.nn.init.normal_(small.decoder.layers[-1].weight)  # its pictures would be grey
    small.save_pretrained(root / "taesd")
    return {name: root / name for name in ("vae", "model", "taesd", *FILES)}


def _once(name: str) -> str:
    """As the VAEs of 2022 on the hub have it, sd-vae-ft-mse among them."""
    for now, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f"attentions.0.{now}", f"attentions.0.{then}")
    return name


def plain_picture(model: Path, vae: Path) -> Image:
    kind = AutoencoderTiny if vae.name == "taesd" else AutoencoderKL
    pipeline = DiffusionPipeline.from_pretrained(model, vae=kind.from_pretrained(vae))
    fields = {name: value for name, value in SMALL.items() if name != "seed"}
    drawn: Image = pipeline(**fields, generator=torch.Generator().manual_seed(SMALL["seed"])).images[0]
    return drawn


@pytest.mark.parametrize("name", ["vae", "model", "taesd", *FILES])
def test_the_picture_is_plain_diffusers_with_that_vae(
    name: str, folders: dict[str, Path], vaes: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "worker"):
        engine = load_engine(MODEL_NAME=str(folders["sdxl"]), VAE_NAME=str(vaes[name]))

    same = vaes["taesd"] if name == "taesd" else vaes["vae"]
    assert_same(picture(engine), plain_picture(folders["sdxl"], same))
    assert f"VAE {Path(name).stem}: VAE_NAME says so" in caplog.text


def test_the_vae_has_the_pipelines_number_format(folders: dict[str, Path], vaes: dict[str, Path]) -> None:
    for name in ("vae", "file.safetensors", "original.safetensors"):
        engine = load_engine(MODEL_NAME=str(folders["sd1"]), VAE_NAME=str(vaes[name]), DTYPE="bfloat16")
        assert {weight.dtype for weight in engine.pipeline.vae.parameters()} == {torch.bfloat16}


def test_the_refiner_shares_it(folders: dict[str, Path], vaes: dict[str, Path], tmp_path: Path) -> None:
    refiner = tiny_models.save(tiny_models.sdxl_refiner(), tmp_path / "refiner")
    engine = load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(refiner), VAE_NAME=str(vaes["vae"]))

    assert isinstance(engine.pipeline, StableDiffusionXLPipeline)
    assert engine.refiner.vae is engine.pipeline.vae
    wanted = load_file(vaes["vae"] / WEIGHTS)["decoder.conv_in.weight"]
    assert torch.equal(engine.pipeline.vae.decoder.conv_in.weight, wanted)


def refused(model: Path, vae: Path | str, error: type[WorkerError], *words: str) -> None:
    with pytest.raises(error) as caught:
        load_engine(MODEL_NAME=str(model), VAE_NAME=str(vae))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("VAE_NAME: "), line
    for word in words:
        assert word in line


def copied(folder: Path, to: Path) -> Path:
    """The path of the weights in a copy of this VAE."""
    return shutil.copytree(folder, to) / WEIGHTS


def test_a_vae_of_other_latents_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny_transformers._vae16().save_pretrained(tmp_path / "vae16")

    for path in (tmp_path / "vae16", tmp_path / "vae16" / WEIGHTS):
        refused(folders["sd1"], path, SettingsError, "16 latent channels", "needs 4")


def test_a_vae_of_another_scale_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(tmp_path / "coarse")

    refused(folders["sd1"], tmp_path / "coarse", SettingsError, "2 pixels per latent", "needs 8")


@pytest.mark.parametrize("kind", ["UNet2DConditionModel", "AutoencoderKLWan", "NoSuchClass"])
def test_another_class_is_refused(kind: str, folders: dict[str, Path], vaes: dict[str, Path], tmp_path: Path) -> None:
    copied(vaes["vae"], tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace('"AutoencoderKL"', f'"{kind}"'))

    refused(folders["sd1"], tmp_path / "other", SettingsError, kind, "AutoencoderKL")


@pytest.mark.parametrize("name", ["/no/such/folder", "no-slash"])
def test_a_name_that_is_nothing(name: str, folders: dict[str, Path]) -> None:
    refused(folders["sd1"], name, ModelError, name)


def test_a_folder_without_a_vae(folders: dict[str, Path]) -> None:
    refused(folders["sd1"], folders["sd1"] / "tokenizer", ModelError, "neither the config.json of a VAE")


def test_damaged_files_are_named(folders: dict[str, Path], vaes: dict[str, Path], tmp_path: Path) -> None:
    whole = (vaes["vae"] / WEIGHTS).read_bytes()
    damage = {"damaged or incomplete": whole[:-5], "a web page": b"<!DOCTYPE html>", "empty": b""}
    for number, (words, content) in enumerate(damage.items()):
        weights = copied(vaes["vae"], tmp_path / str(number))
        weights.write_bytes(content)
        refused(folders["sd1"], weights.parent, ModelError, WEIGHTS, words)
        refused(folders["sd1"], weights, ModelError, WEIGHTS, words)


def test_a_vae_that_lacks_weights(folders: dict[str, Path], vaes: dict[str, Path], tmp_path: Path) -> None:
    weights = copied(vaes["vae"], tmp_path / "half")
    tensors = load_file(weights)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, weights)

    refused(folders["sd1"], weights.parent, ModelError, "decoder.conv_out.bias")
    refused(folders["sd1"], weights, ModelError, "no complete VAE")


def test_an_original_file_that_lacks_weights(folders: dict[str, Path], vaes: dict[str, Path], tmp_path: Path) -> None:
    weights = load_file(vaes["original.safetensors"])
    del weights["decoder.mid.attn_1.q.weight"]

    refused(folders["sd1"], write(weights, tmp_path / "gap.safetensors"), ModelError, "no complete VAE")


def test_a_file_that_is_something_else(folders: dict[str, Path], tmp_path: Path) -> None:
    save_file({"lora_down.weight": torch.zeros(4, 4)}, tmp_path / "lora.safetensors")

    refused(folders["sd1"], tmp_path / "lora.safetensors", ModelError, "holds no VAE")
