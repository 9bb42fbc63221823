"""Pipelines of the published architectures in full size, for GPUs; weights are random."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.helpers.tiny_flows import letters
from tests.helpers.tiny_models import tokenizer
from tests.helpers.tiny_transformers import t5_tokenizer
from tools.published import PUBLISHED

CONFIGS = Path(__file__).parents[1] / "worker" / "engine" / "load" / "configs"


def random(make: Any, dtype: torch.dtype) -> Any:
    """A module on the CPU whose weights are random but quick to make: one small block of noise, repeated.

    The scales of norms are around 1: around 0 they would let hardly anything through, and pictures would be flat.
    """
    with torch.device("meta"):
        module = make()
    module = module.to(dtype).to_empty(device="cpu").eval()
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul(0.02).to(dtype)
    with torch.no_grad():
        for name, weight in [*module.named_parameters(), *module.named_buffers()]:
            if weight.is_floating_point():
                flat = weight.view(-1)
                for start in range(0, flat.numel(), noise.numel()):
                    part = flat[start : start + noise.numel()]
                    part.copy_(noise[: part.numel()])
                if weight.dim() == 1 and name.endswith("weight"):
                    weight.add_(1)
            else:
                weight.copy_(torch.arange(weight.numel()).view(weight.shape))
    return module


def sd1() -> StableDiffusionPipeline:
    """Stable Diffusion 1.x in float16."""
    folder, half = CONFIGS / "sd1", torch.float16
    text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    return StableDiffusionPipeline(
        vae=random(lambda: AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae")), half),
        text_encoder=random(lambda: CLIPTextModel(text), half),
        tokenizer=tokenizer(),
        unet=random(lambda: UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet")), half),
        scheduler=PNDMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL base in float16."""
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
    """FLUX.1 dev in bfloat16."""
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


def z_image() -> ZImagePipeline:
    """Z-Image Turbo in bfloat16."""
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=letters(), **_random_parts("Z-Image")
    )


def klein() -> Flux2KleinPipeline:
    """FLUX.2 klein 4B in bfloat16."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    parts = _random_parts("FLUX.2 klein 4B")
    return Flux2KleinPipeline(scheduler=scheduler, tokenizer=letters(), is_distilled=True, **parts)


def _random_parts(title: str) -> dict[str, Any]:
    (model,) = (one for one in PUBLISHED if one.title == title)
    return {name: random(make, torch.bfloat16) for name, make in model.parts.items()}


MAKE = {"sd15": sd1, "sdxl": sdxl, "flux": flux, "z-image": z_image, "klein": klein}
