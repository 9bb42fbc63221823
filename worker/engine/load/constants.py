"""Constants that a pass would bring from the CPU each time; a pass that does cannot be captured as a graph."""

import functools
from typing import Any

import torch
from torch import Tensor

MAX_TABLES = 32  # of one model; each is for pictures of one size, of some megabytes


def keep_constants(module: torch.nn.Module, device: torch.device) -> None:
    """Have those of Chroma, Kandinsky 5 and JoyAI-Image on this device; other models' are where they are needed."""
    for layer in list[Any](module.modules()):
        match type(layer).__name__:
            case "Kandinsky5TimeEmbeddings":
                layer.freqs = layer.freqs.to(device)
            case "ChromaCombinedTimestepTextProjEmbeddings":
                layer.guidance_proj = _Kept(layer.guidance_proj, device)
            case "JoyImageEditTransformer3DModel":
                _keep_tables(layer, "get_rotary_pos_embed", device)
            case "JoyImageEditPlusTransformer3DModel":
                _keep_tables(layer, "_get_rotary_pos_embed_for_range", device)


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


def _keep_tables(layer: torch.nn.Module, method: str, device: torch.device) -> None:
    """Have this method's tables for given sizes made once, and be on this device.

    They are buffers of the layer: graphs that know one are forgotten when it goes.
    """
    make = getattr(layer, method)
    known: dict[str, Any] = {}
    names: list[str] = []

    def keep(made: Any) -> Any:
        if isinstance(made, tuple):
            return tuple(keep(one) for one in made)
        if isinstance(made, Tensor):
            names.append(f"{method}_{len(names)}")
            layer.register_buffer(names[-1], made.to(device), persistent=False)
            return getattr(layer, names[-1])
        return made

    @functools.wraps(make)
    def give(*sizes: Any, **named: Any) -> Any:
        key = repr((sizes, named))
        if key not in known:
            if len(known) >= MAX_TABLES:
                known.clear()
                while names:
                    delattr(layer, names.pop())
            known[key] = keep(make(*sizes, **named))
        return known[key]

    setattr(layer, method, give)
