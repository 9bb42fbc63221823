"""Constants that a pass would bring from the CPU each time; a pass that does cannot be captured as a graph."""

from typing import Any

import torch
from torch import Tensor


def keep_constants(module: torch.nn.Module, device: torch.device) -> None:
    """Have those of Chroma and Kandinsky 5 on this device; other models' are where they are needed."""
    for layer in list[Any](module.modules()):
        match type(layer).__name__:
            case "Kandinsky5TimeEmbeddings":
                layer.freqs = layer.freqs.to(device)
            case "ChromaCombinedTimestepTextProjEmbeddings":
                layer.guidance_proj = _Kept(layer.guidance_proj, device)


class _Kept(torch.nn.Module):
    """What a module gives for the few numbers that it is ever given, on another device."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        super().__init__()
        self._module, self._device = module, device
        self._given: dict[tuple[float, ...], Tensor] = {}

    def forward(self, numbers: Tensor) -> Tensor:
        """Each number's row.

        Args:
            numbers: (rows,), on the CPU.
        """
        key = tuple(numbers.tolist())
        if key not in self._given:
            self._given[key] = self._module(numbers).to(self._device)
        return self._given[key]
