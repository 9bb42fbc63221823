"""What an exception in mid-drawing leaves behind, put back as it was after loading.

diffusers changes number formats in place (Stable Diffusion XL's VAE decodes in float32) and an exception keeps them so.
"""

import gc
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from worker.engine.pipelines import modules


class Snapshot:
    """The number format and device of every weight after loading."""

    def __init__(self, parts: Sequence[torch.nn.Module], resident: bool) -> None:
        """Note how things are.

        Args:
            parts: every module that holds weights.
            resident: whether weights stay where they are; else only their formats are noted.
        """
        self._states = [state for part in parts for state in _states(part)]
        self._resident = resident

    def restore(self) -> bool:
        """Put back what differs; whether anything did."""
        changed = False
        for held, name, dtype, device in self._states:
            tensor = held.get(name)
            if tensor is not None and (tensor.dtype != dtype or (self._resident and tensor.device != device)):
                tensor.data = tensor.data.to(dtype=dtype, device=device if self._resident else tensor.device)
                changed = True
        return changed


def _states(part: torch.nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.dtype, torch.device]]:
    """Where each weight is held, by its module and name: a cast puts new tensors in the place of buffers."""
    for module in part.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    yield held, name, tensor.dtype, tensor.device


def unique_modules(pipelines: Sequence[Any], others: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The modules of these pipelines, each once, and the others."""
    found = {id(part): part for pipeline in pipelines for part in modules(pipeline).values()}
    return [*found.values(), *others]


def release_exception_memory(error: BaseException) -> None:
    """Drop the frames that an exception holds, and with them the tensors of a job that is over."""
    waiting: list[BaseException | None] = [error]
    done: set[int] = set()  # `raise error from error` makes an exception its own cause
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in done:
            done.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
