"""A model that is larger than one GPU, spread over several: each component whole, on one of them.

Nothing waits in main memory then. A component away from the first device takes what it is given from there, and gives
back what it has made: embeddings, latents and pictures are small beside weights.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.utils import send_to_device
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from worker.engine.bring import bring
from worker.engine.memory_plan import DECODE, DENOISE, LOOK, RESERVE

_DENOISERS = ("unet", "transformer", "refiner unet")
# What pipelines call of a component beside its `forward`: of a VAE, and of a language model that looks at pictures.
_METHODS = "encode", "decode", "get_image_features", "get_image_tokens"

Places = Mapping[str, int]


def choose_places(sizes: Mapping[str, int], pixels: int, free: Sequence[int], seen: int = 0) -> Places | None:
    """Which of these devices keeps which component; None where they cannot keep all.

    Denoisers are on the first, where pictures are drawn; the others, the largest first, where there is most room.

    Args:
        sizes: bytes of each component's weights.
        pixels: of the native size.
        free: bytes of each device's memory, before anything is placed there.
        seen: pixels of pictures that the denoiser looks at beside the one that it draws.
    """
    left, denoise = [one - RESERVE for one in free], pixels * DENOISE + seen * LOOK
    places: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (not name.startswith(_DENOISERS), -sizes[name])):
        first = name.startswith(_DENOISERS)
        place = 0 if first else max(range(len(left)), key=lambda number: left[number])
        left[place] -= sizes[name] + (denoise if first else pixels * DECODE if name == "vae" else 0)
        places[name] = place
    return places if min(left) >= 0 else None


def send(part: torch.nn.Module, device: torch.device, home: torch.device) -> None:
    """Keep a component there; whoever calls it has and gets everything at home."""
    bring([part], device)
    part.to(device)
    if device == home:
        return
    add_hook_to_module(part, AlignDevicesHook(execution_device=device, io_same_device=True))
    for name in _METHODS:
        if hasattr(part, name):
            setattr(part, name, _visit(getattr(part, name), device, home))


def _visit(method: Any, device: torch.device, home: torch.device) -> Any:
    @functools.wraps(method)
    def visit(*given: Any, **named: Any) -> Any:
        there = method(*send_to_device(given, device), **send_to_device(named, device))
        for result in there if isinstance(there, tuple) else [there]:
            _bring_distribution(getattr(result, "latent_dist", result), home)
        return send_to_device(there, home)

    return visit


def _bring_distribution(result: Any, home: torch.device) -> None:
    """What an encoder gives to be sampled from is no tensor, but holds some."""
    if isinstance(result, DiagonalGaussianDistribution):
        for name, value in vars(result).items():
            if isinstance(value, torch.Tensor):
                setattr(result, name, value.to(home))
