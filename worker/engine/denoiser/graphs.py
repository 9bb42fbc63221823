"""Passes done again as graphs: the same kernels on the same numbers, launched at once and not one by one; and, where
that is wished, by fewer kernels, once they are compiled.

A graph does again what one pass did, with the addresses and the constants that it had. So what it was given is copied
to where it was; a pass of another shape, with other adapters or settings, is another graph; and when weights have
moved, the graphs that knew them are forgotten. What cannot be captured runs as it is written.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Literal, Protocol, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor

from worker.engine.denoiser.cuda_graphs import Arguments, Device, Graph, Work
from worker.engine.denoiser.split import Helper, SplitPass, Twin, is_even

log = logging.getLogger("worker")

MAX_GRAPHS = 16  # of one engine; each keeps what its kernels work with
MAX_KINDS = 256
MAX_COMPILED = 8  # kinds of one engine; a compile takes from seconds to minutes
EAGER_PASSES = 2  # of a kind before it is captured: the first chooses algorithms, the second is clocked
WORTH = 0.97  # of the time of a pass as it was done before; what takes more is not kept
MAX_ERROR = 0.02  # of a compiled pass, beside the pass as written, as a share of what it gives
MAX_PICTURE_ERROR = 0.01  # as a share of white less black: 40 dB

AnyGraph = TypeVar("AnyGraph", bound=Graph)
_Layer = ReferenceType[torch.nn.Module]  # one that has gone takes its weights with it
Mode = Literal["off", "graphs", "compile"]
MODES: Sequence[Mode] = ("off", "graphs", "compile")


class Compiler(Protocol):
    """What compiles, beside the drawing."""

    def submit(self, work: Work, arguments: Arguments) -> "Future[Callable[..., Any]]":
        """The work's function, compiled for such arguments."""

    def standing_still(self) -> AbstractContextManager[None]:
        """Inside the `with` nothing is compiled."""

    def close(self) -> None:
        """Leave what is under way where it can be left, and begin nothing more."""


@dataclass
class _Kind:
    """What is known of passes that can be one graph.

    Attributes:
        passes: done so far, in whatever way.
        milliseconds: that one takes, as it is done now.
        addresses: of the weights, when it was captured.
        refused: that it runs as it is written, for good.
        compiled: what comes, or came, of compiling it.
        adopted: that it came, and is in use or was found wanting.
        halves: what comes, or came, of compiling what each of two devices does of it.
    """

    work: Work
    bare: bool
    passes: int = 0
    milliseconds: float = 0.0
    graph: Graph | None = None
    addresses: frozenset[int] = frozenset()
    refused: bool = False
    mode: Mode = "off"
    compiled: "Future[Callable[..., Any]] | None" = None
    adopted: bool = False
    split: "_Split | None" = None
    halves: "dict[Work, Future[Callable[..., Any]]]" = field(default_factory=dict)

    def lose_graph(self) -> None:
        """It runs as it is written, as often as at first; what was compiled for it is there still."""
        self.passes, self.milliseconds, self.mode = 0, 0.0, "off"
        self.graph = self.split = None
        self.adopted = self.refused = False


@dataclass
class _Split:
    """What is known of such passes on two devices.

    Attributes:
        addresses, adapters: of the module on the second device, when it was captured.
        graph: None, if it cannot be had.
        adopted: as of `_Kind`.
    """

    twin: Work
    addresses: frozenset[int]
    adapters: int
    graph: SplitPass | None = None
    milliseconds: float = math.inf
    mode: Mode = "graphs"
    adopted: bool = False


class Graphs:
    """The graphs of one engine, for the thread that draws."""

    def __init__(self, device: Device, measure: bool, compiler: Compiler | None = None) -> None:
        """Nothing is captured yet.

        Args:
            measure: whether a graph is kept only if it is faster.
            compiler: where passes are compiled, too.
        """
        self._device, self._measure, self._compiler = device, measure, compiler
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._used: set[Mode] = set()
        self._submitted = 0
        self._helper: Helper | None = None
        self._layers = WeakKeyDictionary[torch.nn.Module, tuple[int, list[_Layer]]]()  # as of a version
        self._there: dict[tuple[Work, int], frozenset[int]] = {}  # addresses of weights on the helping device
        self._aside = False

    @property
    def mode(self) -> Mode:
        """How passes were done since the last drawing began, the fastest of the ways."""
        return max(self._used, key=MODES.index, default="off")

    @property
    def device(self) -> Device:
        """What captures."""
        return self._device

    @contextmanager
    def drawing(self, helper: Helper | None = None) -> Iterator[None]:
        """Inside the `with` passes are done; between one and the next, by what has been compiled meanwhile.

        Args:
            helper: another device, for a picture's guidance pair.
        """
        with self._compiler.standing_still() if self._compiler else nullcontext():
            self._begin(helper)
            self._helper = helper
            try:
                yield
            finally:
                self._helper = None
                self._there.clear()
            self._end()

    def _begin(self, helper: Helper | None) -> None:
        self._used.clear()
        for kind in list(self._kinds.values()):
            if kind.graph is not None and kind.compiled is not None and kind.compiled.done() and not kind.adopted:
                kind.adopted = True
                self._adopt(kind, kind.graph, kind.compiled)
            if kind.graph is not None and kind.split is not None and helper is not None and not kind.split.adopted:
                self._adopt_halves(kind, kind.split, helper)

    def _end(self) -> None:
        """What was done often is compiled."""
        if self._compiler is None:
            return
        for kind in self._kinds.values():
            if kind.graph is None or not kind.bare or kind.passes < kind.work.often:
                continue
            if kind.compiled is None and self._submitted < MAX_COMPILED:
                self._submitted += 1
                kind.compiled = self._compiler.submit(kind.work.compiled_as or kind.work, kind.graph.arguments)
            split = kind.split
            if kind.compiled is None or split is None or split.graph is None:
                continue
            if split.milliseconds < kind.milliseconds or kind.mode == "compile":
                for work, arguments in zip((kind.work, split.twin), split.graph.halves, strict=True):
                    if work not in kind.halves:
                        kind.halves[work] = self._compiler.submit(work, arguments)

    @property
    def compiles(self) -> bool:
        """Whether passes are compiled, too."""
        return self._compiler is not None

    def wait(self) -> None:
        """Until all that is being compiled is there."""
        for kind in self._kinds.values():
            for compiled in (kind.compiled, *kind.halves.values()):
                if compiled is not None:
                    compiled.exception()

    def stop_compiling(self) -> None:
        """Leave what is being compiled, and compile nothing any more."""
        if self._compiler is not None:
            self._compiler.close()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Inside the `with` there are none, and their memory is there for something else; later they come again."""
        for kind in self._kinds.values():
            kind.lose_graph()
        self._used.clear()
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def run(self, work: Work, state: Hashable, *given: Any, **named: Any) -> Any:
        """One pass.

        Args:
            state: of what else decides what is computed; another state is another graph.
        """
        if self._aside:
            return work.forward(*given, **named)
        tensors: list[Tensor] = []
        try:
            key = work, state, _describe((given, named), tensors)
            kind = self._kinds.setdefault(key, _Kind(work, bare=not state))
        except TypeError:
            return work.forward(*given, **named)
        self._kinds.move_to_end(key)
        kind.passes += 1
        if kind.graph is None and kind.passes > EAGER_PASSES and not kind.refused:
            self._try_to_capture(kind, Arguments(given, named, tensors))
        split = self._find_split(kind, state, Arguments(given, named, tensors)) if kind.graph is not None else None
        self._used.add(split.mode if split else kind.mode)
        if graph := split.graph if split else kind.graph:
            return graph.replay(tensors)
        if kind.passes != EAGER_PASSES:
            return work.forward(*given, **named)
        result, kind.milliseconds = self._device.clock(lambda: work.forward(*given, **named))
        return result

    def check(self, module: torch.nn.Module, version: int) -> None:
        """Forget the graphs of this module that knew weights which are there no more.

        Args:
            version: another one if layers have come or gone.
        """
        addresses = self._find_addresses(module, version)
        self._forget(lambda kind: kind.work.module is module and not kind.addresses <= addresses)

    def forget(self, module: torch.nn.Module) -> None:
        """Forget all graphs of this module."""
        self._forget(lambda kind: kind.work.module is module)

    def forget_adapters(self, module: torch.nn.Module) -> None:
        """Forget the graphs of this module with something attached to it."""
        self._forget(lambda kind: kind.work.module is module and not kind.bare)

    def _find_split(self, kind: _Kind, state: Hashable, arguments: Arguments) -> _Split | None:
        """The pass on two devices, where there is help and that is faster."""
        if self._helper is None or not is_even(arguments.tensors):
            return None
        twin = self._helper.twins.get(kind.work)
        if twin is None or twin.fingerprint != state:
            return None
        split, addresses = kind.split, self._find_there(twin)
        # Other adapters may be where those were that it knew.
        adapters = 0 if kind.bare else twin.adapters
        known = split is not None and split.twin is twin.work and split.adapters == adapters
        if split is None or not known or not split.addresses <= addresses:
            split = kind.split = _Split(twin.work, addresses, adapters)
            self._try_to_split(kind, split, self._helper, arguments)
        return split if split.milliseconds < kind.milliseconds else None

    def _find_there(self, twin: Twin) -> frozenset[int]:
        """Where the weights of the other module are; until the drawing ends, only what it tells of moves them."""
        key = twin.work, twin.version
        if key not in self._there:
            self._there[key] = self._find_addresses(twin.work.module, twin.version)
        return self._there[key]

    def _find_addresses(self, module: torch.nn.Module, version: int) -> frozenset[int]:
        """A GPU waits for this before each picture, so the layers are looked through once for a version."""
        known, layers = self._layers.get(module, (None, []))
        if known != version:
            layers = _list_layers(module)
            self._layers[module] = version, layers
        return _addresses(layers)

    def _try_to_split(self, kind: _Kind, split: _Split, helper: Helper, arguments: Arguments) -> None:
        """Have a graph on both devices, if it can be had."""
        name = f"{kind.work.name} of {_first_shape(arguments.tensors)}"
        try:
            graph, milliseconds = self._capture_halves(kind.work.forward, split.twin.forward, helper, arguments)
        except Exception as error:
            self._device.clock(lambda: None)  # raises, if it is the device that is broken
            log.warning("%s: on one device, %s: %s", name, type(error).__name__, str(error).partition("\n")[0])
            return
        log.info("%s: on two devices, %.1f ms; on one %.1f", name, milliseconds, kind.milliseconds)
        split.graph, split.milliseconds = graph, milliseconds

    def _try_to_capture(self, kind: _Kind, arguments: Arguments) -> None:
        """Have a graph, if it can be had and is worth keeping; else the kind is refused."""
        name = f"{kind.work.name} of {_first_shape(arguments.tensors)}"
        try:
            graph, milliseconds = self._capture(kind.work.forward, arguments)
        except Exception as error:
            self._device.clock(lambda: None)  # raises, if it is the device that is broken
            log.warning("%s: no graph, %s: %s", name, type(error).__name__, str(error).partition("\n")[0])
            kind.refused = True
            return
        if self._measure and milliseconds > WORTH * kind.milliseconds:
            log.info("%s: as it is written, %.1f ms; a graph takes %.1f", name, kind.milliseconds, milliseconds)
            kind.refused = True
            return
        log.info("%s: by a graph, %.1f ms instead of %.1f", name, milliseconds, kind.milliseconds)
        self._keep(kind, graph, milliseconds, "graphs")

    def _adopt(self, kind: _Kind, present: Graph, compiled: "Future[Callable[..., Any]]") -> None:
        """Take what was compiled in place of the present graph, if it is worth it."""

        def capture() -> tuple[Graph, float]:
            return self._capture(compiled.result(), present.arguments)

        if better := self._find_better(kind.work, "", present, kind.milliseconds, capture):
            self._keep(kind, *better, "compile")

    def _adopt_halves(self, kind: _Kind, split: _Split, helper: Helper) -> None:
        """Take what was compiled for each device in place of the present graph on both, if it is there and worth it."""
        twin, compiled = helper.twins.get(kind.work), [kind.halves.get(work) for work in (kind.work, split.twin)]
        ready = [one for one in compiled if one is not None and one.done()]
        if split.graph is None or len(ready) < len(compiled):
            return
        if twin is None or twin.work is not split.twin or twin.fingerprint:
            return
        if not split.addresses <= self._find_there(twin):  # the present graph knows weights that are there no more
            return
        split.adopted, arguments = True, split.graph.arguments

        def capture() -> tuple[SplitPass, float]:
            forward, other = (one.result() for one in ready)
            return self._capture_halves(forward, other, helper, arguments)

        if better := self._find_better(kind.work, " on two devices", split.graph, split.milliseconds, capture):
            split.graph, split.milliseconds = better
            split.mode = "compile"

    @torch.no_grad()
    def _find_better(
        self,
        work: Work,
        where: str,
        present: AnyGraph,
        milliseconds: float,
        capture: Callable[[], tuple[AnyGraph, float]],
    ) -> tuple[AnyGraph, float] | None:
        """What is captured of compiled passes, and its milliseconds, if it is as near to the present as it must be, and
        faster.
        """
        name = f"{work.name} of {_first_shape(present.arguments.tensors)}{where}"
        try:
            graph, compiled = capture()
            found, expected = (one.replay(present.arguments.tensors) for one in (graph, present))
            error = _difference(found, expected, work.draws)
        except Exception as failure:
            self._device.clock(lambda: None)
            log.warning("%s: not compiled, %s: %s", name, type(failure).__name__, str(failure).partition("\n")[0])
            return None
        if not error <= (MAX_PICTURE_ERROR if work.draws else MAX_ERROR):  # nor is what is no number
            log.warning("%s: compiled it differs by %.1f %%; not used", name, 100 * error)
        elif compiled > WORTH * milliseconds:
            log.info("%s: by a graph, %.1f ms; compiled %.1f", name, milliseconds, compiled)
        else:
            log.info("%s: compiled, %.1f ms instead of %.1f", name, compiled, milliseconds)
            return graph, compiled
        return None

    @torch.no_grad()
    def _capture(self, forward: Callable[..., Any], arguments: Arguments) -> tuple[Graph, float]:
        """A graph, and the milliseconds that it takes."""
        graph = self._device.capture(forward, arguments)
        return graph, self._clock(graph, arguments)

    @torch.no_grad()
    def _capture_halves(
        self, forward: Callable[..., Any], twin: Callable[..., Any], helper: Helper, arguments: Arguments
    ) -> tuple[SplitPass, float]:
        """A graph on both devices, and the milliseconds that it takes."""
        graph = SplitPass(self._device, helper.device, forward, twin, arguments)
        return graph, self._clock(graph, arguments)

    def _clock(self, graph: Graph, arguments: Arguments) -> float:
        """Milliseconds of a replay that is not the first."""
        graph.replay(arguments.tensors)
        return self._device.clock(lambda: graph.replay(arguments.tensors))[1]

    def _keep(self, kind: _Kind, graph: Graph, milliseconds: float, mode: Mode) -> None:
        kind.graph, kind.milliseconds, kind.mode = graph, milliseconds, mode
        kind.addresses = _addresses(_list_layers(kind.work.module))
        self._layers.pop(kind.work.module, None)  # the first passes may have given a layer what it keeps
        captured = [key for key, kind in self._kinds.items() if kind.graph is not None]
        for key in captured[:-MAX_GRAPHS]:
            del self._kinds[key]
        while len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)

    def _forget(self, which: Callable[[_Kind], bool]) -> None:
        for key in [key for key, kind in self._kinds.items() if which(kind)]:
            del self._kinds[key]


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
    if _has_state(value):
        raise TypeError(f"what {type(value).__name__} holds may be another at each pass")
    hash(value)
    return type(value), value


def _has_state(value: Any) -> bool:
    """Whether it is the same object whatever it holds, such as keys and values that are kept from pass to pass."""
    own_hash: Any = type(value).__hash__
    return own_hash is object.__hash__ and hasattr(value, "__dict__") and not isinstance(value, (type, FunctionType))


def _difference(found: Any, expected: Any, draws: bool) -> float:
    """How far off, as a share of what is expected; of a picture, of the span of its values."""
    one, other = _first_tensor(found).float(), _first_tensor(expected).float()
    if draws:
        return float((one.clamp(-1, 1) - other.clamp(-1, 1)).square().mean().sqrt() / 2)
    return float((one - other).norm() / other.norm())


def _first_tensor(value: Any) -> Tensor:
    while not isinstance(value, Tensor):
        value = value[0]
    return value


def _first_shape(tensors: Sequence[Tensor]) -> str:
    return "x".join(map(str, tensors[0].shape)) if tensors else "nothing"


def _list_layers(module: torch.nn.Module) -> list[_Layer]:
    """Those of its layers that have weights of their own."""
    return [ref(layer) for layer in module.modules() if layer._parameters or layer._buffers]


def _addresses(layers: Iterable[_Layer]) -> frozenset[int]:
    """Where the weights of these are now."""
    return frozenset(
        weight.data_ptr()
        for one in layers
        if (layer := one()) is not None
        for holder in (layer._parameters, layer._buffers)
        for weight in holder.values()
        if weight is not None
    )
