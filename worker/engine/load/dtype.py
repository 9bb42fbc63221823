"""DTYPE and the device -> the number format of the weights, with the reason for the choice."""

import logging

import torch

from worker.settings import Settings

log = logging.getLogger("worker")


def choose_dtype(settings: Settings, device: torch.device, transformer: bool) -> torch.dtype:
    """The number format of the weights; the reason is logged.

    Args:
        transformer: whether a diffusion transformer denoises, rather than a UNet.
    """
    dtype, reason = _choose(settings, device, transformer)
    log.info("%s: %s", dtype, reason)
    return dtype


def _choose(settings: Settings, device: torch.device, transformer: bool) -> tuple[torch.dtype, str]:
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype), "DTYPE says so"
    if device.type == "cpu":
        return torch.float32, "CPUs compute half precision slowly"
    if transformer and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "transformers overflow in float16"
    return torch.float16, "UNets are published in half precision, and fastest in it"
