"""What CUDA graphs are, without a GPU: a pass done again with the constants that it had, on weights where they were."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from worker.engine.denoiser.cuda_graphs import Arguments, clone, own_arguments
from worker.engine.denoiser.graphs import Compiler, Graphs
from worker.engine.engine import Engine


class BakedDevice:
    """Captures by copying the module: what is no tensor stays as it was, tensors are read where they were.

    Attributes:
        captures, replays: how often.
        milliseconds: that each action is said to take, in turn; the last one for ever.
        fail: raised at the next capture, if there is something.
    """

    def __init__(self, milliseconds: Sequence[float] = (1.0,)) -> None:
        self.captures = self.replays = 0
        self.milliseconds = list(milliseconds)
        self.fail: Exception | None = None

    def capture(self, forward: Callable[..., Any], arguments: Arguments) -> "Baked":
        self.captures += 1
        if self.fail:
            raise self.fail
        return Baked(self, forward, arguments)

    def run(self, forward: Callable[..., Any], arguments: Arguments) -> None:
        forward(*arguments.given, **arguments.named)

    def entered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def clock(self, action: Callable[[], Any]) -> tuple[Any, float]:
        return action(), self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]


class Baked:
    """One pass."""

    def __init__(self, device: BakedDevice, forward: Any, arguments: Arguments) -> None:
        self._device, self._forward = device, forward
        self._module: Any = None
        if isinstance(forward, MethodType):
            module = self._module = forward.__self__
            self._addresses = _addresses(module)
            held: dict[int, Any] = {id(one): _alias(one) for one in (*module.parameters(), *module.buffers())}
            self._forward = MethodType(forward.__func__, copy.deepcopy(module, held))
        self.arguments = own_arguments(arguments)

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        self._device.replays += 1
        if self._module is not None:
            assert self._addresses <= _addresses(self._module), "on a GPU this reads memory that is another's by now"
        for own, tensor in zip(self.arguments.tensors, tensors, strict=True):
            own.copy_(tensor)
        return clone(self._forward(*self.arguments.given, **self.arguments.named))


def _addresses(module: torch.nn.Module) -> set[int]:
    return {one.data_ptr() for one in (*module.parameters(), *module.buffers())}


def _alias(weight: Tensor) -> Tensor:
    """Another tensor at the same address."""
    alias = weight.detach()
    return torch.nn.Parameter(alias, requires_grad=False) if isinstance(weight, torch.nn.Parameter) else alias


@contextmanager
def graphs_of(
    engine: Engine, device: BakedDevice, measure: bool = False, compiler: Compiler | None = None
) -> Iterator[Graphs]:
    """Inside the `with`, the engine's denoisers run by graphs."""
    graphs = Graphs(device, measure, compiler)
    for runner in engine.runners:
        runner.graphs = graphs
    try:
        yield graphs
    finally:
        for runner in engine.runners:
            runner.graphs = None
