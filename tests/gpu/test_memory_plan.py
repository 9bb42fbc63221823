"""Full-size SDXL in 8 GB and FLUX in 24 GB: the plan that is chosen by free memory draws without running out.

Architectures are the published ones; weights are random. The card's other memory is taken by a filler, so that the
worker finds as much free as on the smaller card.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tiny_models import tokenizer
from tiny_transformers import t5_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from worker.addons import find_addons
from worker.engine.describe import describe
from worker.engine.memory import Plan, place, plan_for
from worker.settings import Settings

CONFIGS = Path(__file__).parents[2] / "worker" / "engine" / "configs"
DEVICE = torch.device("cuda")
GB = 10**9


def random(make: Any, dtype: torch.dtype) -> Any:
    """A module on the CPU whose weights are random but quick to make: one small block of noise, repeated."""
    with torch.device("meta"):
        module = make()
    module = module.to(dtype).to_empty(device="cpu").eval()
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul(0.02).to(dtype)
    with torch.no_grad():
        for weight in [*module.parameters(), *module.buffers()]:
            if weight.is_floating_point():
                flat = weight.view(-1)
                for start in range(0, flat.numel(), noise.numel()):
                    part = flat[start : start + noise.numel()]
                    part.copy_(noise[: part.numel()])
            else:
                weight.copy_(torch.arange(weight.numel()).view(weight.shape))
    return module


def sdxl() -> StableDiffusionXLPipeline:
    folder, half = CONFIGS / "sdxl", torch.float16
    text, text_2 = (CLIPTextConfig.from_pretrained(folder / name) for name in ("text_encoder", "text_encoder_2"))
    return StableDiffusionXLPipeline(
        vae=random(lambda: AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae")), half),
        text_encoder=random(lambda: CLIPTextModel(text), half),
        text_encoder_2=random(lambda: CLIPTextModelWithProjection(text_2), half),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=random(lambda: UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet")), half),
        scheduler=EulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
    )


def flux() -> FluxPipeline:
    half = torch.bfloat16
    clip = CLIPTextConfig.from_pretrained(CONFIGS / "sdxl" / "text_encoder")
    t5 = T5Config(
        vocab_size=32128, d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    vae = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "sample_size": 1024,
    }
    return FluxPipeline(
        transformer=random(lambda: FluxTransformer2DModel(guidance_embeds=True), half),
        vae=random(lambda: AutoencoderKL(**vae), half),
        text_encoder=random(lambda: CLIPTextModel(clip), half),
        tokenizer=tokenizer(),
        text_encoder_2=random(lambda: T5EncoderModel(t5), half),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


@contextmanager
def card_of(gigabytes: int) -> Iterator[None]:
    """Leave as much of the card free as a card of this size has."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    filler = torch.empty(free - gigabytes * GB, dtype=torch.uint8, device=DEVICE)
    torch.cuda.reset_peak_memory_stats()
    try:
        yield
    finally:
        del filler
        torch.cuda.empty_cache()


def draw_on_card(pipeline: Any, gigabytes: int) -> tuple[Plan, float]:
    """Plan, place and draw a picture of native size in two steps; the plan and the peak in GB."""
    model = describe(pipeline, "full size", Settings(), find_addons(Settings()))
    pipeline.set_progress_bar_config(disable=True)
    with card_of(gigabytes):
        filled = torch.cuda.memory_allocated()
        plan = plan_for(model, [pipeline], [], None, DEVICE)
        place([pipeline], [], plan, DEVICE)
        image = pipeline("a star", num_inference_steps=2, width=model.width, height=model.height).images[0]
        peak = (torch.cuda.max_memory_reserved() - filled) / GB
        assert image.size == (model.width, model.height)
    print(f"\n{type(pipeline).__name__} on {gigabytes} GB: {plan.reason}; peak {peak:.2f} GB reserved")
    return plan, peak


@pytest.mark.parametrize(("gigabytes", "offload"), [(8, "model"), (24, "none")])
def test_sdxl(gigabytes: int, offload: str) -> None:
    plan, peak = draw_on_card(sdxl(), gigabytes)

    assert plan.offload == offload
    assert peak < gigabytes


@pytest.mark.parametrize(("gigabytes", "offload"), [(24, "group"), (48, "none")])
def test_flux(gigabytes: int, offload: str) -> None:
    plan, peak = draw_on_card(flux(), gigabytes)

    assert plan.offload == offload
    assert peak < gigabytes
