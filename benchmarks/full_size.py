"""Pipelines of the published architectures in full size, for GPUs; weights are random."""

from typing import Any

import torch
from accelerate import init_empty_weights

from benchmarks.models import make_tiny
from tools.published import PUBLISHED

CPU = torch.device("cpu")
PUBLISHED_AS = {
    "sd15": "Stable Diffusion 1.5",
    "sdxl": "Stable Diffusion XL",
    "sd35": "Stable Diffusion 3.5 Large",
    "flux": "FLUX.1",
    "z-image": "Z-Image",
    "klein": "FLUX.2 klein 4B",
    "klein-9b": "FLUX.2 klein 9B",
    "qwen": "Qwen-Image",
    "chroma": "Chroma1",
}


def make(name: str) -> Any:
    """A model that scenes draw with."""
    return in_full_size(make_tiny(name), PUBLISHED_AS[name])


def in_full_size(tiny: Any, title: str, device: torch.device = CPU) -> Any:
    """A pipeline whose parts with weights are a published model's, in float16 if it has a UNet, else in bfloat16.

    Args:
        tiny: the same in tiny form, of which the rest is taken: scheduler, tokenizers, flags.
        title: as in `PUBLISHED`.
    """
    (model,) = (one for one in PUBLISHED if one.title == title)
    dtype = torch.float16 if "unet" in model.parts else torch.bfloat16
    parts = {name: random(build, dtype, device) for name, build in model.parts.items()}
    flags = {name: value for name, value in tiny.config.items() if isinstance(value, bool)}
    return type(tiny)(**{**tiny.components, **parts}, **flags)


def random(build: Any, dtype: torch.dtype, device: torch.device = CPU) -> Any:
    """A module whose weights are random but quick to make: one small block of noise, repeated.

    The scales and variances of norms are around 1: around 0 they would let hardly anything through, or be negative.
    """
    with init_empty_weights(include_buffers=False):  # what a module computes and keeps beside them is real
        module = build()
    module = module.to(dtype).to_empty(device=device).eval()
    if hasattr(module, "tie_weights"):
        module.tie_weights()  # what it uses twice was made twice
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
