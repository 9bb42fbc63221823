"""CUDA graphs: one pass as the kernels that it launched, done again on other numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakSet

import torch
from diffusers.utils import BaseOutput
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Work:
    """What passes do: a function that reads the weights of a module.

    Attributes:
        name: for the log.
        often: passes of one kind after which they are worth compiling: about a picture's, or some pictures'.
        compiled_as: what is compiled in its place, where that is nearly the same and faster.
        draws: whether it gives pictures, from -1 to 1.
    """

    name: str
    module: torch.nn.Module
    forward: Callable[..., Any]
    often: int = 16
    compiled_as: "Work | None" = None
    draws: bool = False


@dataclass(frozen=True, eq=False)
class Arguments:
    """What one pass is given, and the tensors in it, in their order."""

    given: Sequence[Any]
    named: Mapping[str, Any]
    tensors: Sequence[Tensor]


class Graph(Protocol):
    """A pass that can be done again."""

    arguments: Arguments

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        """What the pass makes of these."""


class Device(Protocol):
    """What captures."""

    def capture(self, forward: Callable[..., Any], arguments: Arguments) -> Graph:
        """One pass as a graph."""

    def run(self, forward: Callable[..., Any], arguments: Arguments) -> None:
        """One pass as it is written, for what it warms."""

    def clock(self, action: Callable[[], Any]) -> tuple[Any, float]:
        """What the action gives, and the milliseconds that the device took for it."""

    def entered(self) -> AbstractContextManager[Any]:
        """Inside the `with` this is the current device, for whoever draws on another one."""


class CudaDevice:
    """Captures on a stream of its own; all graphs share one pool of memory, for one is done at a time."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is captured yet."""
        self._device = device
        self._stream, self._beside = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._graphs: WeakSet[_CudaGraph] = WeakSet()
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, forward: Callable[..., Any], arguments: Arguments) -> Graph:
        """As `Device`. Other threads may use the device meanwhile."""
        if not self._graphs:  # torch gives up a pool that no graph has, and takes its handle no more
            self._pool = torch.cuda.graph_pool_handle()
        graph = _CudaGraph(forward, arguments, self._device, self._stream, self._pool)
        self._graphs.add(graph)
        return graph

    def run(self, forward: Callable[..., Any], arguments: Arguments) -> None:
        """As `Device`."""
        own = own_arguments(arguments, self._device)
        forward(*own.given, **own.named)

    def clock(self, action: Callable[[], Any]) -> tuple[Any, float]:
        """As `Device`; waits for it."""
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(self._device)
        started.record(stream)
        result = action()
        ended.record(stream)
        torch.cuda.synchronize(self._device)
        return result, float(started.elapsed_time(ended))

    def entered(self) -> AbstractContextManager[Any]:
        """As `Device`."""
        return torch.cuda.stream(self._beside)


class _CudaGraph:
    def __init__(
        self,
        forward: Callable[..., Any],
        arguments: Arguments,
        device: torch.device,
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        self.arguments = own_arguments(arguments, device)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._output = forward(*self.arguments.given, **self.arguments.named)

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        """As `Graph`."""
        for own, tensor in zip(self.arguments.tensors, tensors, strict=True):
            own.copy_(tensor)
        self._graph.replay()
        return clone(self._output)


def own_arguments(arguments: Arguments, device: torch.device | None = None) -> Arguments:
    """The same in tensors that nobody else has, on this device or where they are."""
    tensors = [tensor.detach().to(device or tensor.device, copy=True) for tensor in arguments.tensors]
    own = iter(tensors)
    return Arguments(put_tensors(arguments.given, own), put_tensors(arguments.named, own), tensors)


def clone(value: Any) -> Any:
    """The same with tensors of its own, which the next replay leaves alone.

    Raises:
        TypeError: it is more than tensors, and tuples, lists and outputs of them.
    """
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(clone(one) for one in value)
    if isinstance(value, BaseOutput):
        return type(value)(**{name: clone(one) for name, one in value.items()})
    raise TypeError(f"a pass that returns {type(value).__name__}")


def put_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same with these tensors in place of its own, in their order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Mapping):
        return {name: put_tensors(one, tensors) for name, one in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(put_tensors(one, tensors) for one in value)
    return value
