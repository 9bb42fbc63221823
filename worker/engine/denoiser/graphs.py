"""Passes captured as CUDA graphs: the same kernels on the same numbers, launched at once and not one by one.

A graph does again what one pass did, with the addresses and the constants that it had. So what it was given is copied
to where it was; a pass of another shape, with other adapters or settings, is another graph; and when weights have
moved, the graphs that knew them are forgotten. What cannot be captured runs as it is written.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger("worker")

MAX_GRAPHS = 16  # of one engine; each keeps what its kernels work with
MAX_KINDS = 256
EAGER_PASSES = 2  # of a kind before it is captured: the first chooses algorithms, the second is clocked
WORTH = 0.97  # of the time of a pass as it is written; a graph that takes more is not kept


@dataclass(frozen=True, eq=False)
class Work:
    """What passes do: a function that reads the weights of a module.

    Attributes:
        name: for the log.
    """

    name: str
    module: torch.nn.Module
    forward: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Arguments:
    """What one pass is given, and the tensors in it, in their order."""

    given: Sequence[Any]
    named: Mapping[str, Any]
    tensors: Sequence[Tensor]


class Graph(Protocol):
    """A pass that can be done again."""

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        """What the pass makes of these."""


class Device(Protocol):
    """What captures."""

    def capture(self, work: Work, arguments: Arguments) -> Graph:
        """One pass as a graph."""

    def clock(self, action: Callable[[], Any]) -> tuple[Any, float]:
        """What the action gives, and the milliseconds that the device took for it."""


@dataclass
class _Kind:
    """What is known of passes that can be one graph.

    Attributes:
        addresses: of the weights, when it was captured.
        refused: that it runs as it is written, for good.
    """

    work: Work
    passes: int = 0
    eager_ms: float = 0.0
    graph: Graph | None = None
    addresses: frozenset[int] = frozenset()
    refused: bool = False


class Graphs:
    """The graphs of one engine, for the thread that draws."""

    def __init__(self, device: Device, measure: bool) -> None:
        """Nothing is captured yet.

        Args:
            measure: whether a graph is kept only if it is faster.
        """
        self._device, self._measure = device, measure
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def run(self, work: Work, state: Hashable, *given: Any, **named: Any) -> Any:
        """One pass.

        Args:
            state: of what else decides what is computed; another state is another graph.
        """
        tensors: list[Tensor] = []
        try:
            key = work, state, _describe((given, named), tensors)
            kind = self._kinds.setdefault(key, _Kind(work))
        except TypeError:
            return work.forward(*given, **named)
        self._kinds.move_to_end(key)
        if kind.graph is not None:
            return kind.graph.replay(tensors)
        kind.passes += 1
        if kind.refused:
            return work.forward(*given, **named)
        if kind.passes > EAGER_PASSES and (graph := self._try_to_capture(kind, Arguments(given, named, tensors))):
            return graph.replay(tensors)
        result, kind.eager_ms = self._device.clock(lambda: work.forward(*given, **named))
        return result

    def check(self, module: torch.nn.Module) -> None:
        """Forget the graphs of this module that knew weights which are there no more."""
        addresses = _addresses(module)
        self._forget(lambda kind: kind.work.module is module and not kind.addresses <= addresses)

    def forget(self, module: torch.nn.Module) -> None:
        """Forget all graphs of this module."""
        self._forget(lambda kind: kind.work.module is module)

    def _try_to_capture(self, kind: _Kind, arguments: Arguments) -> Graph | None:
        """The graph, if it can be had and is worth keeping; else the kind is refused."""
        name = f"{kind.work.name} of {_first_shape(arguments.tensors)}"
        try:
            graph = self._device.capture(kind.work, arguments)
            graph.replay(arguments.tensors)
            _, replay_ms = self._device.clock(lambda: graph.replay(arguments.tensors))
        except Exception as error:
            self._device.clock(lambda: None)  # raises, if it is the device that is broken
            log.warning("%s: no graph, %s: %s", name, type(error).__name__, str(error).partition("\n")[0])
            kind.refused = True
            return None
        if self._measure and replay_ms > WORTH * kind.eager_ms:
            log.info("%s: as it is written, %.1f ms; a graph takes %.1f", name, kind.eager_ms, replay_ms)
            kind.refused = True
            return None
        log.info("%s: by a graph, %.1f ms instead of %.1f", name, replay_ms, kind.eager_ms)
        kind.graph, kind.addresses = graph, _addresses(kind.work.module)
        self._keep_bounds()
        return graph

    def _keep_bounds(self) -> None:
        captured = [key for key, kind in self._kinds.items() if kind.graph is not None]
        for key in captured[:-MAX_GRAPHS]:
            del self._kinds[key]
        while len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)

    def _forget(self, which: Callable[[_Kind], bool]) -> None:
        for key in [key for key, kind in self._kinds.items() if which(kind)]:
            del self._kinds[key]


class CudaDevice:
    """Captures on a stream of its own; all graphs share one pool of memory, for one is done at a time."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is captured yet."""
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Work, arguments: Arguments) -> Graph:
        """As `Device`. Other threads may use the device meanwhile."""
        return _CudaGraph(work, arguments, self._device, self._stream, self._pool)

    def clock(self, action: Callable[[], Any]) -> tuple[Any, float]:
        """As `Device`; waits for it."""
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        started.record()
        result = action()
        ended.record()
        torch.cuda.synchronize(self._device)
        return result, float(started.elapsed_time(ended))


class _CudaGraph:
    def __init__(
        self, work: Work, arguments: Arguments, device: torch.device, stream: torch.cuda.Stream, pool: Any
    ) -> None:
        self._inputs = [tensor.detach().to(device, copy=True) for tensor in arguments.tensors]
        own = iter(self._inputs)
        given, named = put_tensors(arguments.given, own), put_tensors(arguments.named, own)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._output = work.forward(*given, **named)

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        """As `Graph`."""
        for own, tensor in zip(self._inputs, tensors, strict=True):
            own.copy_(tensor)
        self._graph.replay()
        return clone(self._output)


def clone(value: Any) -> Any:
    """The same with tensors of its own, which the next replay leaves alone.

    Raises:
        TypeError: it is more than tensors, and tuples and lists of them.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(clone(one) for one in value)
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


def _describe(value: Any, tensors: list[Tensor]) -> Hashable:
    """All that decides which kernels run; the tensors in it are added to the list, in their order.

    Raises:
        TypeError: no graph can be made for it.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, Mapping):
        return tuple((name, _describe(one, tensors)) for name, one in value.items())
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_describe(one, tensors) for one in value)
    if isinstance(value, float):
        raise TypeError("a number that may be another at every step, and would be part of the graph")
    hash(value)
    return type(value), value


def _first_shape(tensors: Sequence[Tensor]) -> str:
    return "x".join(map(str, tensors[0].shape)) if tensors else "nothing"


def _addresses(module: torch.nn.Module) -> frozenset[int]:
    return frozenset(weight.data_ptr() for held in (module.parameters(), module.buffers()) for weight in held)
