"""What an exception in mid-drawing leaves behind, put back as it was after loading; and memory held back at need.

diffusers changes number formats in place (Stable Diffusion XL's VAE decodes in float32) and an exception keeps them so.
Health is proved by doing: after a repair the engine draws a picture, which nobody sees.
"""

import gc
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from worker.engine.tasks import modules


class Snapshot:
    """The number format and device of every weight after loading."""

    def __init__(self, parts: Sequence[torch.nn.Module], resident: bool) -> None:
        """Note how things are.

        Args:
            parts: every module that holds weights.
            resident: whether weights stay where they are; else only their formats are noted.
        """
        self._states = [(tensor, tensor.dtype, tensor.device) for part in parts for tensor in _tensors(part)]
        self._resident = resident

    def restore(self) -> None:
        """Put back what differs."""
        for tensor, dtype, device in self._states:
            if tensor.dtype != dtype or (self._resident and tensor.device != device):
                tensor.data = tensor.data.to(dtype=dtype, device=device if self._resident else tensor.device)


def _tensors(part: torch.nn.Module) -> Iterator[Tensor]:
    yield from part.parameters()
    yield from part.buffers()


def parts_of(pipelines: Sequence[Any], others: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The modules of these pipelines, each once, and the others."""
    found = {id(part): part for pipeline in pipelines for part in modules(pipeline).values()}
    return [*found.values(), *others]


def forget(error: BaseException) -> None:
    """Drop the frames that an exception holds, and with them the tensors of a job that is over."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def lean(vae: Any) -> Iterator[None]:
    """Decode by tiles inside the `with`: slower, with a small part of the memory, and very nearly the same picture."""
    if not hasattr(vae, "enable_tiling") or getattr(vae, "use_tiling", False):
        yield
        return
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()
