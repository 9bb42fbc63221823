"""QUANTIZE makes the weights of the denoiser and of T5 smaller, and pictures hardly different.

diffusers insists on a GPU for bitsandbytes, though its kernels run on CPUs too. Here that check is off, so that these
are the real kernels, with the worker's real loading around them; tests/gpu has the same on a GPU.
"""

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Int8Params, Params4bit
from diffusers.quantizers.bitsandbytes import bnb_quantizer

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.drawing import decibels, load_engine, picture
from tests.helpers.tiny_addons import Kits, noise, uri
from worker.engine.engine import Engine
from worker.engine.load.quantize import check_quantize, quantization_options
from worker.engine.memory import weight_sizes
from worker.engine.memory_plan import choose_memory_plan
from worker.errors import SettingsError
from worker.models.locate import ModelSource
from worker.settings import Settings

MAKE: dict[str, Callable[[], Any]] = {
    "sdxl": tiny_models.sdxl,
    "sd3": tiny_transformers.sd3,
    "flux": tiny_transformers.flux,
}
QUANTISED = {"sdxl": {"unet"}, "sd3": {"transformer", "text_encoder_3"}, "flux": {"transformer", "text_encoder_2"}}
KINDS = {"8bit": Int8Params, "4bit": Params4bit}
FOLDER = ModelSource("folder", "/models/x", "x", "")


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Let diffusers and the worker quantise without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
            patch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
            patch.setattr(quantizer, "update_device_map", lambda *_: {"": "cpu"})
        patch.setattr("worker.engine.load.loader.check_quantize", lambda *_: None)
        # Where a CPU multiplies bfloat16, bitsandbytes packs weights for it, which takes larger ones than these.
        patch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
        yield


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Engine]:
    """(family, QUANTIZE) -> its tiny model."""
    root = tmp_path_factory.mktemp("whole")
    folders = {family: tiny_models.save(make(), root / family) for family, make in MAKE.items()}
    with on_the_cpu():
        return {
            (family, bits): load_engine(MODEL_NAME=str(folder), QUANTIZE=bits)
            for family, folder in folders.items()
            for bits in ("none", *KINDS)
        }


@pytest.mark.parametrize("bits", KINDS)
@pytest.mark.parametrize("family", MAKE)
def test_only_the_large_parts_are_quantised(family: str, bits: str, loaded: dict[tuple[str, str], Engine]) -> None:
    for name, part in loaded[family, bits].pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            assert any(isinstance(weight, KINDS[bits]) for weight in part.parameters()) == (name in QUANTISED[family])


@pytest.mark.parametrize("bits", KINDS)
@pytest.mark.parametrize(
    ("pipeline", "encoder", "kind"),
    [
        ("Flux2Pipeline", "text_encoder", "Mistral3ForConditionalGeneration"),
        ("Flux2KleinPipeline", "text_encoder", "Qwen3ForCausalLM"),
        ("QwenImagePipeline", "text_encoder", "Qwen2_5_VLForConditionalGeneration"),
        ("GlmImagePipeline", "vision_language_encoder", "GlmImageForConditionalGeneration"),
    ],
)
def test_text_encoders_as_large_as_the_denoiser_are_quantised(
    pipeline: str, encoder: str, kind: str, bits: Any
) -> None:
    index = {
        "_class_name": pipeline,
        encoder: ["transformers", kind],
        "tokenizer": ["transformers", "AutoTokenizer"],
        "transformer": ["diffusers", "AnyTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }

    options = quantization_options(Settings(quantize=bits), index, torch.bfloat16)

    assert set(options["quantization_config"].quant_mapping) == {"transformer", encoder}


@pytest.mark.parametrize(("bits", "share"), [("8bit", 0.55), ("4bit", 0.5)])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_plan_counts_the_smaller_weights(
    family: str, bits: str, share: float, loaded: dict[tuple[str, str], Engine]
) -> None:
    before, after = (weight_sizes([loaded[family, kind].pipeline]) for kind in ("none", bits))
    for name in before:
        if name in QUANTISED[family]:
            assert after[name] < share * before[name], name
        else:
            assert after[name] == before[name], name


@pytest.mark.parametrize(("bits", "bits_a_weight"), [("8bit", 8 + 32 / 256), ("4bit", 4 + 32 / 64)])
def test_the_scales_are_counted_too(bits: str, bits_a_weight: float) -> None:
    kind = KINDS[bits]
    options = {"quant_type": "nf4", "compress_statistics": False} if bits == "4bit" else {}
    weight = kind(torch.randn(256, 256), requires_grad=False, **options)
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight = weight.to("cpu")

    sizes = weight_sizes([type("Pipeline", (), {"components": {"unet": layer}})])

    assert sizes["unet"] == 256 * 256 * bits_a_weight / 8


@pytest.mark.parametrize(("bits", "least"), [("8bit", 45.0), ("4bit", 30.0)])
@pytest.mark.parametrize("family", MAKE)
def test_pictures_hardly_differ(family: str, bits: str, least: float, loaded: dict[tuple[str, str], Engine]) -> None:
    whole, fewer, again = (picture(loaded[family, kind], guidance_scale=3.5) for kind in ("none", bits, bits))

    difference = decibels(fewer, whole)
    print(f"\n{family} in {bits}: {difference:.1f} dB")
    assert least < difference < math.inf
    assert fewer == again


def test_a_refiner_is_quantised_too(folders: dict[str, Path], tmp_path: Path) -> None:
    refiner = tiny_models.save(tiny_models.sdxl_refiner(), tmp_path / "refiner")
    with on_the_cpu():
        engine = load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(refiner), QUANTIZE="8bit")

    assert any(isinstance(weight, Int8Params) for weight in engine.refiner.unet.parameters())
    assert picture(engine, refiner={"high_noise_frac": 0.5, "steps": 4}).getbbox() is not None


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("bits", KINDS)
def test_loras_and_controlnets_act_and_leave(family: str, bits: str, kits: Kits) -> None:
    with on_the_cpu():
        engine = load_engine(**kits[family].settings("loras", "controlnets"), QUANTIZE=bits)
    jobs: list[dict[str, Any]] = [{}, {"lora": "plain"}, {"controlnet": {"name": "edges", "image": uri(noise(1))}}]

    drawn = [picture(engine, num_inference_steps=2, **job).tobytes() for job in (*jobs, {})]

    assert len(set(drawn)) == len(jobs)
    assert drawn[0] == drawn[-1]


def test_a_unet_then_takes_no_ip_adapter(kits: Kits) -> None:
    with on_the_cpu(), pytest.raises(SettingsError) as refused:
        load_engine(**kits["sdxl"].settings("ip_adapter"), QUANTIZE="4bit")
    assert str(refused.value) == "IP_ADAPTER: StableDiffusionXLPipeline takes none with QUANTIZE=4bit"


def test_the_choice_is_logged(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "worker"), on_the_cpu():
        load_engine(MODEL_NAME=str(folders["sd1"]), QUANTIZE="4bit")
    assert "4bit weights for unet: QUANTIZE says so" in caplog.text


def refusal(source: ModelSource, device: str, **settings: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        check_quantize(Settings(**settings), source, torch.device(device))
    (line,) = str(refused.value).splitlines()
    return line


def test_without_a_gpu_it_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="QUANTIZE: 4bit needs a CUDA device, and none was found"):
        load_engine(MODEL_NAME=str(folders["sd1"]), QUANTIZE="4bit")


@pytest.mark.parametrize(("bits", "package"), [("8bit", "bitsandbytes"), ("fp8", "torchao")])
def test_without_the_package_the_remedy_is_named(bits: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    line = refusal(FOLDER, "cuda", quantize=bits)
    assert line == (
        f"QUANTIZE: {bits} needs {package}, which is not installed; `pip install -r requirements-gpu.txt` installs it"
    )


def test_bitsandbytes_does_not_warn_of_kernels_for_cpus() -> None:
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("kind", ["file", "hub file"])
def test_a_single_file_is_refused(kind: Any) -> None:
    line = refusal(ModelSource(kind, "/models/x.safetensors", "x", ""), "cuda", quantize="4bit")
    assert line.startswith("QUANTIZE: x is a single file")


@pytest.mark.parametrize("offload", ["model", "group"])
def test_8_bit_weights_are_not_offloaded(offload: Any) -> None:
    assert refusal(FOLDER, "cuda", quantize="8bit", offload=offload).startswith(f"OFFLOAD: got '{offload}'; 8-bit")
    check_quantize(Settings(quantize="4bit", offload=offload), FOLDER, torch.device("cuda"))


def test_a_plan_for_8_bit_weights_keeps_them_on_the_device() -> None:
    sizes = {"transformer": 12 * 10**9, "text_encoder_2": 6 * 10**9, "vae": 10**8}

    plan = choose_memory_plan(sizes, 1024 * 1024, 16 * 10**9, None, "8bit")

    assert (plan.offload, plan.tiling) == ("none", True)
    assert "weights 18.1 GB with QUANTIZE=8bit" in plan.reason
    assert choose_memory_plan(sizes, 1024 * 1024, 16 * 10**9, None, "4bit").offload == "model"
