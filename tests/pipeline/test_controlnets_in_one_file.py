"""A ControlNet in one file acts as the same one in a folder, in either layout; what is no such file is named."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, FluxControlNetModel, FluxTransformer2DModel, UNet2DConditionModel
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.helpers import original_layout, tiny_models
from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.original_names import unet_weights
from tests.helpers.tiny_addons import Kits, noise, uri, write
from worker.engine.adapters.controlnet_file import read_controlnet_file
from worker.engine.adapters.controlnets import load_controlnets
from worker.engine.load.checkpoint import CONFIGS
from worker.errors import ModelError, SettingsError
from worker.models.adapters import find_adapters
from worker.settings import Settings

LINES = uri(noise(1))
WEIGHTS = "diffusion_pytorch_model.safetensors"
BASE = {"model.diffusion_model.out.2.bias": torch.zeros(4), "first_stage_model.quant_conv.bias": torch.zeros(8)}
UNETS = {name: make().unet for name, make in (("sd1", tiny_models.sd1), ("sdxl", tiny_models.sdxl))}


def published(kits: Kits, family: str) -> Any:
    return ControlNetModel.from_pretrained(kits[family].controlnets["edges"])


def files(kits: Kits, folder: Path) -> dict[str, tuple[str, Path]]:
    """Layout -> family, and the file of its kit's ControlNet of edges."""
    found = {f"diffusers, {one}": (one, kits[one].controlnets["edges"] / WEIGHTS) for one in ("sd1", "sdxl", "flux")}
    for family, prefix in (("sd1", "control_model."), ("sd1", ""), ("sdxl", "control_model.")):
        file = folder / f"{family}-{prefix or 'bare.'}safetensors"
        found[f"original, {prefix or 'bare'}, {family}"] = (
            family,
            write(unet_weights(published(kits, family), prefix), file),
        )
    weights = unet_weights(published(kits, "sd1"), "control_model.") | BASE
    found["original, with the model"] = "sd1", write(weights, folder / "whole.safetensors")
    return found


@pytest.fixture(scope="module")
def drawn(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Layout -> what is drawn with the file, and with the folder; the files of a family are loaded together."""
    layouts = files(kits, tmp_path_factory.mktemp("files"))
    pictures: dict[str, Any] = {}
    for family in ("sd1", "sdxl", "flux"):
        own = {layout: file for layout, (name, file) in layouts.items() if name == family}
        places = {f"file{number}": file for number, file in enumerate(own.values())}
        places["folder"] = kits[family].controlnets["edges"]
        setting = ", ".join(f"{name}={place}" for name, place in places.items())
        engine = load_engine(MODEL_NAME=str(kits[family].model), CONTROLNETS=setting)
        plain = picture(engine)
        shown = {name: picture(engine, controlnet={"name": name, "image": LINES}) for name in places}
        pictures |= {layout: (shown[f"file{n}"], shown["folder"], plain) for n, layout in enumerate(own)}
    return pictures


LAYOUTS = [
    *("diffusers, sd1", "diffusers, sdxl", "diffusers, flux", "original, control_model., sd1", "original, bare, sd1"),
    *("original, control_model., sdxl", "original, with the model"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_draws_as_the_folder_does(layout: str, drawn: dict[str, Any]) -> None:
    file, folder, plain = drawn[layout]
    assert_same(file, folder)
    assert file.tobytes() != plain.tobytes()


@pytest.mark.parametrize(("kind", "parameters"), [("sd1", 361_279_120), ("sdxl", 1_251_014_160)])
def test_every_weight_of_a_published_one_arrives(kind: str, parameters: int, tmp_path: Path) -> None:
    """At its full size, which is the published one."""
    shapes = original_layout.controlnet(original_layout.LAYOUTS[kind]())
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    file = original_layout.write(tmp_path / "control.safetensors", shapes)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(CONFIGS / kind, subfolder="unet"))
    net = read_controlnet_file(file, "control").load(unet, torch.float16)
    arrived = [weight.detach().flatten()[:1].view(torch.int16).item() for weight in net.parameters()]
    assert sorted(arrived) == sorted(bits for places in original_layout.marks(shapes).values() for _, bits in places)
    assert arrived[0] == original_layout.marks(shapes)["control_model.input_blocks.0.0.weight"][0][1]


shapes = st.fixed_dictionaries(
    {
        "family": st.sampled_from(sorted(UNETS)),
        "depths": st.lists(st.integers(0, 2), min_size=2, max_size=2),
        "middle": st.integers(0, 2),
        "hints": st.lists(st.integers(1, 3), min_size=4, max_size=4),
        "channels": st.sampled_from([1, 3, 4]),
        "original": st.booleans(),
    }
)


@examples(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes)
def test_its_form_is_read_from_its_tensors(tmp_path: Path, shape: dict[str, Any]) -> None:
    """Published ones have fewer layers than their models here and there, such as those called small and mid."""
    unet, torch_file = UNETS[shape["family"]], tmp_path / "net.safetensors"
    deepest = shape["middle"] or shape["depths"][-1] or 1
    depths = [shape["depths"][0], deepest if shape["depths"][-1] else 0]
    base = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=shape["hints"])
    net = ControlNetModel.from_config(
        {
            **base.config,
            "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
            "transformer_layers_per_block": [depths[0] or 1, deepest],
            "mid_block_type": "UNetMidBlock2DCrossAttn" if shape["middle"] else "UNetMidBlock2D",
            "conditioning_channels": shape["channels"],
        }
    )
    weights = unet_weights(net, "control_model.") if shape["original"] else net.state_dict()
    save_file({name: weight.contiguous() for name, weight in weights.items()}, torch_file)

    loaded = read_controlnet_file(torch_file, "net").load(unet, torch.float32).state_dict()

    assert loaded.keys() == net.state_dict().keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in net.state_dict().items())


def test_it_has_the_models_number_format(kits: Kits) -> None:
    kit = kits["sd1"]
    file = kit.controlnets["edges"] / WEIGHTS
    engine = load_engine(MODEL_NAME=str(kit.model), CONTROLNETS=f"edges={file}", DTYPE="bfloat16")
    assert {weight.dtype for weight in engine.controlnets["edges"].parameters()} == {torch.bfloat16}


def test_only_what_is_called_shuffle_pools_its_conditions(kits: Kits, tmp_path: Path) -> None:
    """As the published ones; no tensor says so."""
    file = kits["sd1"].controlnets["edges"] / WEIGHTS
    for name in ("control_v11e_sd15_shuffle", "control_v11p_sd15_canny"):
        net = read_controlnet_file(file, name).load(UNETS["sd1"], torch.float32)
        assert net.config.global_pool_conditions == ("shuffle" in name)


@pytest.fixture(scope="module")
def pipelines(kits: Kits) -> dict[str, Any]:
    return {family: load_engine(MODEL_NAME=str(kits[family].model)).pipeline for family in ("sd1", "sd3")}


def refused(pipeline: Any, file: Path, error: type[Exception] = ModelError) -> str:
    offered = Settings(controlnets=f"edges={file}")
    with pytest.raises(error, match=r"^CONTROLNETS: edges: ") as caught:
        load_controlnets(find_adapters(offered), pipeline, offered)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ("lora_unet_down_blocks_0.lora_down.weight", "is a LoRA; LORA_DIR"),
        ("lllite_unet_input_blocks_4.conditioning1.0.weight", "ControlNet-LLLite"),
        ("lora_controlnet", "is a Control-LoRA"),
        ("adapter.body.0.block1.weight", "is a T2I-Adapter"),
        ("double_blocks.0.img_attn.qkv.weight", "for FLUX in another layout"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a whole model; name it in MODEL_NAME"),
        ("something.weight", "no ControlNet that this worker knows"),
    ],
)
def test_another_kind_of_file_is_named(tensor: str, words: str, pipelines: dict[str, Any], tmp_path: Path) -> None:
    file = write({tensor: torch.zeros(1)}, tmp_path / "other.safetensors")
    assert words in refused(pipelines["sd1"], file)


@pytest.mark.parametrize("mark", ["difference", "lora_controlnet"])
def test_one_that_lacks_the_models_weights_is_named(
    mark: str, kits: Kits, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    weights = unet_weights(published(kits, "sd1"), "control_model.") | {mark: torch.zeros(0)}
    told = refused(pipelines["sd1"], write(weights, tmp_path / "part.safetensors"))
    assert {"difference": "the difference of a ControlNet to a model", "lora_controlnet": "a Control-LoRA"}[
        mark
    ] in told


def test_one_for_another_model_is_told_from_the_file(kits: Kits, pipelines: dict[str, Any]) -> None:
    files = {name: kits[name].controlnets["edges"] / WEIGHTS for name in ("sd1", "sdxl", "sd3", "flux")}
    assert "text of width 64, this model's is 32" in refused(pipelines["sd1"], files["sdxl"], SettingsError)
    for family in ("flux", "sd3"):
        told = refused(pipelines["sd1"], files[family], SettingsError)
        assert "ControlNetModel, no ControlNet for this model" in told
    assert "its config.json is needed" in refused(pipelines["sd3"], files["sd3"])


def test_gaps_and_damage_are_named(kits: Kits, pipelines: dict[str, Any], tmp_path: Path) -> None:
    weights = published(kits, "sd1").state_dict()
    del weights["mid_block.resnets.1.conv2.bias"]
    told = refused(pipelines["sd1"], write(weights, tmp_path / "gap.safetensors"))
    assert "missing 1 weights, e.g. mid_block.resnets.1.conv2.bias" in told
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((kits["sd1"].controlnets["edges"] / WEIGHTS).read_bytes()[:-5])
    assert "cut.safetensors is no safetensors file, or is damaged" in refused(pipelines["sd1"], cut)
    page = tmp_path / "page.safetensors"
    page.write_text("<!DOCTYPE html>")
    assert "is a web page" in refused(pipelines["sd1"], page)


def test_flux_says_all_in_its_tensors(kits: Kits) -> None:
    saved = FluxControlNetModel.from_pretrained(kits["flux"].controlnets["depth"])
    found = read_controlnet_file(kits["flux"].controlnets["depth"] / WEIGHTS, "depth")
    loaded = found.load(FluxTransformer2DModel.from_pretrained(kits["flux"].model / "transformer"), torch.float32)
    assert {name: loaded.config[name] for name in loaded.config if not name.startswith("_")} == {
        name: saved.config[name] for name in saved.config if not name.startswith("_")
    }
