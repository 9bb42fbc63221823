"""Has a GPU do, while Python still imports, what else its first picture would wait for.

CUDA gives a process its context when something is first computed, cuBLAS and cuDNN are opened at the first product and
the first convolution, and every kernel is brought at its first use.
"""

import threading
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.settings import peek_settings

_CHANNELS, _SIDE, _HEADS = 320, 64, 8  # as in the outermost block of a UNet for 512x512


def begin_to_warm() -> None:
    """Have a thread compute on the first GPU, if there is one and `WARM_UP` lets it."""
    settings = peek_settings()
    if settings is not None and settings.warm_up != "off" and torch.cuda.is_available():
        threading.Thread(target=warm, args=(torch.device("cuda", 0),), name="warm-device").start()


def warm(device: torch.device) -> None:
    """Compute a little of all that pictures are made of, in each type; a device that cannot is told when it loads."""
    with suppress(Exception):
        for dtype in (torch.float16, torch.bfloat16):
            compute(device, dtype)


@torch.no_grad()
def compute(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros through what a block of a UNet, a transformer or a decoder is made of: 1 x 320 x 128 x 128."""
    zeros = partial(torch.zeros, device=device, dtype=dtype)
    picture = F.silu(F.group_norm(zeros(1, _CHANNELS, _SIDE, _SIDE), 32, zeros(_CHANNELS), zeros(_CHANNELS)))
    picture = F.conv2d(picture, zeros(_CHANNELS, _CHANNELS, 3, 3), zeros(_CHANNELS), padding=1)
    tokens = F.layer_norm(picture.flatten(2).transpose(1, 2), [_CHANNELS], zeros(_CHANNELS), zeros(_CHANNELS))
    tokens = F.gelu(F.linear(tokens, zeros(_CHANNELS, _CHANNELS), zeros(_CHANNELS)))
    heads = tokens.view(1, -1, _HEADS, _CHANNELS // _HEADS).transpose(1, 2)
    tokens = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
    return F.interpolate(tokens.transpose(1, 2).view_as(picture), scale_factor=2.0)
