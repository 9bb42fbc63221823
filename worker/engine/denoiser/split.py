"""Guidance pairs on two devices: each pass in two halves, which are computed at once.

Guided pictures take every pass twice, with their prompts and without, as one batch. The second half runs on another
device, by another engine's module with the same weights, while that engine has nothing else to do. Nobody waits for the
second device but the first one, by events in their queues.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.engine.denoiser.cuda_graphs import Arguments, Device, Work, put_tensors

HALVES = 2


class Twin(Protocol):
    """What another engine has in the place of a module.

    Attributes:
        fingerprint: what acts in it beside its own weights.
        version: counts what has changed it.
        adapters: counts how often such were loaded or taken off.
    """

    work: Work
    version: int
    adapters: int

    @property
    def fingerprint(self) -> Hashable:
        """Equal for equal functions of equal weights."""


@dataclass(frozen=True)
class Helper:
    """Another engine's device, which has nothing else to do.

    Attributes:
        twins: what the own engine runs -> what that one has in its place.
    """

    device: Device
    twins: Mapping[Work, Twin]


class SplitPass:
    """A pass as two graphs, one on each device."""

    def __init__(
        self, own: Device, helper: Device, forward: Callable[..., Any], twin: Callable[..., Any], arguments: Arguments
    ) -> None:
        """Capture both.

        Args:
            twin: computes the same on the helper.
        """
        self.arguments = arguments
        self._helper = helper
        first, second = (_halve(arguments, half) for half in range(HALVES))
        with helper.entered():
            helper.run(twin, second)
            self._second = helper.capture(twin, second)
        own.run(forward, first)
        self._first = own.capture(forward, first)

    @property
    def halves(self) -> Sequence[Arguments]:
        """What each was given, where it was."""
        return self._first.arguments, self._second.arguments

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        """As `Graph`."""
        with self._helper.entered():
            second = self._second.replay(carry_over(_halve_all(tensors, 1), self._second.arguments.tensors[0].device))
        first = self._first.replay(_halve_all(tensors, 0))
        with self._helper.entered():
            return _join(first, second)


def carry_over(tensors: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """The same on this device, by one copy for all that are elsewhere: between devices, what a copy waits for takes
    longer than its bytes.

    Args:
        tensors: of any shapes and number formats.
    """
    carried: dict[int, Tensor] = {}
    for source in {one.device for one in tensors} - {device}:
        there = [number for number, one in enumerate(tensors) if one.device == source]
        there.sort(key=lambda number: -tensors[number].element_size())  # so that each is aligned
        flat = [tensors[number].reshape(-1).view(torch.uint8) for number in there]
        parts = torch.split(torch.cat(flat).to(device, non_blocking=True), [len(one) for one in flat])
        carried |= {number: part.view(tensors[number].dtype) for number, part in zip(there, parts, strict=True)}
    return [carried.get(number, one).reshape(one.shape) for number, one in enumerate(tensors)]


def is_even(tensors: Sequence[Tensor]) -> bool:
    """Whether these are as many of everything that there may be many of, and an even number."""
    numbers = {len(one) for one in tensors if one.ndim and len(one) > 1}
    return len(numbers) == 1 and max(numbers) % HALVES == 0


def _halve(arguments: Arguments, half: int) -> Arguments:
    tensors = _halve_all(arguments.tensors, half)
    own = iter(tensors)
    return Arguments(put_tensors(arguments.given, own), put_tensors(arguments.named, own), tensors)


def _halve_all(tensors: Sequence[Tensor], half: int) -> list[Tensor]:
    return [one.chunk(HALVES)[half] if one.ndim and len(one) > 1 else one for one in tensors]


def _join(first: Any, second: Any) -> Any:
    """Both halves on the device of the first."""
    device = next(_list_tensors(first)).device
    return _concatenate(first, put_tensors(second, iter(carry_over(list(_list_tensors(second)), device))))


def _concatenate(first: Any, second: Any) -> Any:
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    if type(first) in (tuple, list):
        return type(first)(_concatenate(one, other) for one, other in zip(first, second, strict=True))
    return first


def _list_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _list_tensors(one)
