"""Numbers that are none: caught where latents become a picture, where they would give a black one without a word."""

import functools
from typing import Any

import torch
from torch import Tensor

from worker.errors import NonFiniteOutput


def guard_decoder(vae: Any) -> None:
    """Let the VAE's decoder take and give finite numbers only.

    What overflows in half precision is decoded again in float32.
    """
    decode = vae.decode

    @functools.wraps(decode)
    def guarded(latents: Tensor, *rest: Any, **named: Any) -> Any:
        if not _is_finite(latents):
            raise NonFiniteOutput("the model's latents are no numbers any more; DTYPE=bfloat16 or float32 may cure it")
        result = decode(latents, *rest, **named)
        if _is_finite(result[0]):
            return result
        dtype = vae.dtype
        if dtype != torch.float32:
            vae.to(torch.float32)
            try:
                result = decode(latents.float(), *rest, **named)
            finally:
                vae.to(dtype)
        if not _is_finite(result[0]):
            raise NonFiniteOutput("the decoded picture holds no numbers; DTYPE=bfloat16 or float32 may cure it")
        return result

    vae.decode = guarded


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all().item())
