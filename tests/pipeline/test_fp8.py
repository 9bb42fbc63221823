"""QUANTIZE=fp8 halves the weights of a transformer's blocks and of large text encoders, and pictures hardly differ.

torchao computes on CPUs too, so that these are its real weights; only the check that asks for a GPU is off here.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import group_offloading
from torchao.quantization import Float8Tensor

from tests.helpers import tiny_flows, tiny_models, tiny_transformers
from tests.helpers.drawing import decibels, load_engine, picture
from tests.helpers.tiny_addons import Kits, denoiser, noise, uri
from worker.engine.engine import Engine
from worker.engine.load import fp8
from worker.engine.load.quantize import check_quantize
from worker.engine.memory import weight_sizes
from worker.errors import SettingsError
from worker.models.locate import ModelSource
from worker.packages import list_unused_packages
from worker.settings import Settings

MAKE: dict[str, Callable[[], Any]] = {
    "sd3": tiny_transformers.sd3,
    "flux": tiny_transformers.flux,
    "chroma": tiny_transformers.chroma,
    "qwen": tiny_transformers.qwen,
    "z_image": tiny_flows.z_image,
    "flux2_klein": tiny_flows.flux2_klein,
}
LARGE_TEXT = {"sd3": "text_encoder_3", "flux": "text_encoder_2"}
SENSITIVE = ("embed", "norm", "mod", "distilled_guidance_layer", "img_in", "txt_in")


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Let the worker do without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.engine.load.loader.check_quantize", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> folder of its tiny model."""
    return tiny_models.save_all(MAKE, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def loaded(models: dict[str, Path]) -> dict[tuple[str, str], Engine]:
    """(family, QUANTIZE) -> its tiny model."""
    with on_the_cpu():
        return {
            (family, kind): load_engine(MODEL_NAME=str(folder), QUANTIZE=kind)
            for family, folder in models.items()
            for kind in ("none", "fp8")
        }


def find_float8(part: torch.nn.Module) -> list[str]:
    return [name for name, layer in part.named_modules() if isinstance(getattr(layer, "weight", None), Float8Tensor)]


@pytest.mark.parametrize("family", MAKE)
def test_blocks_are_float8_and_what_is_sensitive_stays(family: str, loaded: dict[tuple[str, str], Engine]) -> None:
    quantised = find_float8(loaded[family, "fp8"].pipeline.transformer)

    assert any(".att" in name for name in quantised)
    assert any(part in name for name in quantised for part in ("ff", "feed_forward", "mlp"))
    assert not [name for name in quantised if any(part in name for part in SENSITIVE)]
    assert "proj_out" not in quantised


@pytest.mark.parametrize("family", MAKE)
def test_other_parts_stay_but_large_text_encoders(family: str, loaded: dict[tuple[str, str], Engine]) -> None:
    components = loaded[family, "fp8"].pipeline.components
    modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}

    assert {name for name, part in modules.items() if find_float8(part)} == {
        "transformer",
        LARGE_TEXT.get(family, "text_encoder"),
    }
    assert "lm_head" not in find_float8(modules[LARGE_TEXT.get(family, "text_encoder")])


@pytest.mark.parametrize("family", MAKE)
def test_pictures_hardly_differ(family: str, loaded: dict[tuple[str, str], Engine]) -> None:
    whole, fewer, again = (picture(loaded[family, kind], guidance_scale=3.5) for kind in ("none", "fp8", "fp8"))

    difference = decibels(fewer, whole)
    print(f"\n{family} in fp8: {difference:.1f} dB")
    assert 40 < difference < math.inf
    assert fewer == again


@pytest.mark.parametrize("family", ["flux", "qwen", "z_image"])
def test_what_is_kept_makes_them_nearer(
    family: str, models: dict[str, Path], loaded: dict[tuple[str, str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp8, "find_layers", lambda part: [x for x in part.modules() if type(x) is torch.nn.Linear])
    with on_the_cpu():
        all_of_it = load_engine(MODEL_NAME=str(models[family]), QUANTIZE="fp8")
    whole, ours, naive = (picture(one) for one in (loaded[family, "none"], loaded[family, "fp8"], all_of_it))

    assert decibels(ours, whole) > decibels(naive, whole) + 3


def test_the_plan_counts_a_byte_a_weight_and_the_scales() -> None:
    layer = torch.nn.Linear(256, 128, bias=False).to(torch.bfloat16)
    blocks = torch.nn.Module()
    blocks.blocks = torch.nn.ModuleList([torch.nn.Sequential(layer)])
    pipeline = type("Pipeline", (), {"components": {"transformer": blocks}})

    fp8.keep_in_fp8(pipeline, torch.device("cpu"))

    assert weight_sizes([pipeline]) == {"transformer": 256 * 128 + 128 * 4}


def test_loras_and_controlnets_act_and_leave(kits: Kits) -> None:
    with on_the_cpu():
        engine = load_engine(**kits["flux"].settings("loras", "controlnets"), QUANTIZE="fp8")
    jobs: list[dict[str, Any]] = [{}, {"lora": "plain"}, {"controlnet": {"name": "edges", "image": uri(noise(1))}}]

    drawn = [picture(engine, num_inference_steps=2, **job).tobytes() for job in (*jobs, {})]

    assert len(set(drawn)) == len(jobs)
    assert drawn[0] == drawn[-1]


def test_the_choice_is_logged_with_what_it_is_for(models: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "worker"), on_the_cpu():
        load_engine(MODEL_NAME=str(models["flux"]), QUANTIZE="fp8")
    lines = [line for line in caplog.messages if "fp8" in line]
    assert len(lines) == 2 and all("QUANTIZE says so" in line for line in lines)
    assert "weights of transformer" in lines[0] + lines[1] and "weights of text_encoder_2" in lines[0] + lines[1]


def test_a_unet_is_refused_by_name_before_it_is_read(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.load.pretrained.read_pipeline", pytest.fail)
    with on_the_cpu(), pytest.raises(SettingsError) as refused:
        load_engine(MODEL_NAME=str(folders["sd1"]), QUANTIZE="fp8")
    assert str(refused.value) == (
        "QUANTIZE: fp8 is for diffusion transformers, and StableDiffusionPipeline draws with none; "
        "allowed: none, 8bit, 4bit"
    )


def test_without_a_gpu_it_is_refused(models: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="QUANTIZE: fp8 needs a CUDA device, and none was found"):
        load_engine(MODEL_NAME=str(models["flux"]), QUANTIZE="fp8")


@pytest.mark.parametrize("offload", ["auto", "none", "model", "group"])
def test_it_goes_with_every_offload(offload: Any) -> None:
    source = ModelSource("folder", "/models/x", "x", "")
    check_quantize(Settings(quantize="fp8", offload=offload), source, torch.device("cuda"))


@pytest.mark.parametrize(
    ("quantize", "hidden"),
    [("none", {"torchao", "bitsandbytes"}), ("4bit", {"torchao"}), ("fp8", {"bitsandbytes"})],
)
def test_libraries_see_the_package_that_is_used_alone(
    quantize: str, hidden: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTIZE", quantize)
    assert {"torchao", "bitsandbytes"} & set(list_unused_packages()) == hidden


def test_a_weight_that_was_sent_back_says_where_it_is(loaded: dict[tuple[str, str], Engine]) -> None:
    """diffusers fetches a layer whose first weight says that it waits; `meta` stands for the GPU."""
    assert group_offloading._restore_torchao_tensor is fp8.send_back
    part = denoiser(loaded["flux", "fp8"].pipeline)
    weight = next(one for one in part.parameters() if isinstance(one, Float8Tensor))
    kept, numbers = weight.detach(), weight.dequantize()
    for _ in range(2):
        group_offloading._swap_torchao_tensor(weight, weight.to("meta"))
        assert weight.device.type == "meta"
        group_offloading._restore_torchao_tensor(weight, kept)
        assert weight.device.type == kept.device.type == "cpu"
        assert torch.equal(weight.dequantize(), numbers)


def test_what_is_kept_of_a_weight_stays_while_the_weight_goes(loaded: dict[tuple[str, str], Engine]) -> None:
    """Also of one that waits already: its group is made anew when a LoRA comes or goes. Nothing is pinned here."""
    part = denoiser(loaded["flux", "fp8"].pipeline)
    weight = next(one for one in part.parameters() if isinstance(one, Float8Tensor))
    numbers = weight.dequantize()
    for _ in range(2):
        kept = group_offloading.ModuleGroup._to_cpu(weight, low_cpu_mem_usage=True)
        group_offloading._swap_torchao_tensor(weight, weight.to("meta"))
        assert kept.qdata.device.type == "cpu"
        group_offloading._restore_torchao_tensor(weight, kept)
        assert torch.equal(weight.dequantize(), numbers)
