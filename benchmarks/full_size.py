"""Pipelines of the published architectures in full size, for GPUs; weights are random."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    FluxPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.helpers.tiny_flows import letters
from tests.helpers.tiny_models import tokenizer
from tests.helpers.tiny_transformers import t5_tokenizer
from tools.published import PUBLISHED

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[1] / "worker" / "engine" / "load" / "configs"


def random(make: Any, dtype: torch.dtype, device: torch.device = CPU) -> Any:
    """A module whose weights are random but quick to make: one small block of noise, repeated.

    The scales and variances of norms are around 1: around 0 they would let hardly anything through, or be negative.
    """
    with init_empty_weights(include_buffers=False):  # what a module computes and keeps beside them is real
        module = make()
    module = module.to(dtype).to_empty(device=device).eval()
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul(0.02).to(device, dtype)
    with torch.no_grad():
        for name, weight in [*module.named_parameters(), *module.named_buffers()]:
            if weight.is_floating_point():
                flat = weight.view(-1)
                for start in range(0, flat.numel(), noise.numel()):
                    part = flat[start : start + noise.numel()]
                    part.copy_(noise[: part.numel()])
                if weight.dim() == 1 and name.endswith(("weight", "running_var")):
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
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts = random_parts("FLUX.1")
    return FluxPipeline(scheduler=scheduler, tokenizer=tokenizer(), tokenizer_2=t5_tokenizer(), **parts)


def z_image() -> ZImagePipeline:
    """Z-Image Turbo in bfloat16."""
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=letters(), **random_parts("Z-Image")
    )


def klein() -> Flux2KleinPipeline:
    """FLUX.2 klein 4B in bfloat16."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    parts = random_parts("FLUX.2 klein 4B")
    return Flux2KleinPipeline(scheduler=scheduler, tokenizer=letters(), is_distilled=True, **parts)


def random_parts(title: str, device: torch.device = CPU) -> dict[str, Any]:
    """What of a published model has weights, in bfloat16.

    Args:
        title: as in `PUBLISHED`.
    """
    (model,) = (one for one in PUBLISHED if one.title == title)
    return {name: random(make, torch.bfloat16, device) for name, make in model.parts.items()}


MAKE = {"sd15": sd1, "sdxl": sdxl, "flux": flux, "z-image": z_image, "klein": klein}
