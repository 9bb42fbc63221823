"""What was read once, once more for another device: the same weights, in modules that know nothing of the first ones.

Weights are copied from the device that has them, and read from no disk a second time.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engine.pipelines import build_pipeline, modules


@dataclass(frozen=True)
class Parts:
    """All that holds weights: a pipeline, SDXL's refiner or None, and ControlNets by name."""

    pipeline: Any
    refiner: Any | None
    controlnets: Mapping[str, Any]

    @property
    def pipelines(self) -> list[Any]:
        """Both, or the one that there is."""
        return [one for one in (self.pipeline, self.refiner) if one is not None]

    @property
    def nets(self) -> list[Any]:
        """The ControlNets."""
        return list(self.controlnets.values())

    def named(self) -> dict[str, Any]:
        """Every component of these, by a name of its own."""
        found = {f"{number}.{name}": part for number, one in enumerate(self.pipelines) for name, part in _list(one)}
        return {**found, **{f"controlnet.{name}": net for name, net in self.controlnets.items()}}


@dataclass(frozen=True)
class Copy:
    """The same modules once more, around the same weights.

    Attributes:
        pairs: each of its weights that can be copied by itself, and the one that it is a copy of.
    """

    parts: Parts
    pairs: Sequence[tuple[Tensor, Tensor]]

    def bring(self, device: torch.device) -> None:
        """Have the weights on this device, as far as the originals are on one by now."""
        for own, original in self.pairs:
            if original.device.type != "cpu":
                own.data = original.data.to(device)


def copy_parts(parts: Parts) -> Copy:
    """These once more; to be called before anything is attached to them."""
    plain = [weight for weight in _weights(parts) if _is_plain(weight)]
    held: dict[int, Any] = {id(weight): _wrap(weight) for weight in plain}
    pairs = [(held[id(weight)], weight) for weight in plain]
    named = copy.deepcopy(parts.named(), held)

    def rebuild(number: int, pipeline: Any) -> Any:
        own = {name: named[f"{number}.{name}"] for name, _ in _list(pipeline)}
        return build_pipeline(pipeline, type(pipeline), **own)

    first, *others = [rebuild(number, one) for number, one in enumerate(parts.pipelines)]
    nets = {name: named[f"controlnet.{name}"] for name in parts.controlnets}
    return Copy(Parts(first, next(iter(others), None), nets), pairs)


def _list(pipeline: Any) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in pipeline.components.items() if part is not None)


def _weights(parts: Parts) -> list[Tensor]:
    """Of all modules, each once."""
    found = [part for one in parts.pipelines for part in modules(one).values()] + list(parts.controlnets.values())
    weights = [weight for part in found for weight in (*part.parameters(), *part.buffers())]
    return list({id(weight): weight for weight in weights}.values())


def _is_plain(weight: Tensor) -> bool:
    """Whether it is no packed one, which knows more than its numbers."""
    return type(weight) in (Tensor, torch.nn.Parameter)


def _wrap(weight: Tensor) -> Tensor:
    """Another one around the same numbers."""
    if isinstance(weight, torch.nn.Parameter):
        return torch.nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    return weight.detach()
