"""What a denoiser's passes would ask of the CPU if they ran on a GPU, seen without one.

In the place of the GPU stands torch's `meta` device, which knows shapes and no numbers: what has to be brought to it
from the CPU is noticed, and whoever asks it for a number is told that there is none.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.helpers.faults import engine_of
from worker.engine.denoiser.compiled import share_weights
from worker.engine.load.constants import keep_constants
from worker.runtime.worker import Worker

META = torch.device("meta")
# In each of their passes the CPU decides what is computed next: how many tokens an expert is given, or a mask leaves.
ASK_THE_CPU = ("glm-image", "hidream", "hunyuan", "qwen-2.1", "qwen-image-2.1")


class _Brought(TorchDispatchMode):
    """Notes what is brought from the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        named = named or {}
        tensors = [one for one in tree_leaves((given, named)) if isinstance(one, Tensor)]
        target = named.get("device")
        goes = any(one.device == META for one in tensors) or (target is not None and torch.device(target) == META)
        if goes and any(one.device.type == "cpu" and one.ndim for one in tensors):
            self.calls.append(str(function))
        return function(*given, **named)


def check_passes(worker: Worker, draw: Callable[[], object], asks: bool) -> None:
    """Check that this drawing's passes ask the CPU each time, or do not, and then give the same with what is kept."""
    runner = engine_of(worker).runners[0]
    found: list[Any] = []

    def run(*given: Any, **named: Any) -> Any:
        found[:] = given, named
        return type(runner).run(runner, *given, **named)

    with patch.object(runner, "run", run):
        draw()
    given, named = found
    module = runner.work.module
    assert bool(_list_what_it_asks(share_weights(copy.deepcopy(module)), given, named)) == asks
    if not asks:
        twin = share_weights(module)
        with torch.no_grad():
            expected = tree_leaves(twin(*given, **named))
            keep_constants(twin, next(twin.parameters()).device)
            for _ in range(2):
                found = tree_leaves(twin(*given, **named))
                assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def _list_what_it_asks(module: torch.nn.Module, given: Any, named: Any) -> list[str]:
    """What the pass needs of the CPU each time; the module is nowhere afterwards."""
    module.to(META)
    keep_constants(module, META)
    given, named = (
        tree_map(lambda one: one.to(META) if isinstance(one, Tensor) else one, one) for one in (given, named)
    )
    with torch.no_grad(), patch.object(torch, "autocast", lambda *_, **__: nullcontext()):  # which `meta` has not
        try:
            module(*given, **named)  # the first brings what stays
            with _Brought() as brought:
                module(*given, **named)
        except RuntimeError as error:  # there is no number to be had; any other is a fault
            told = str(error).partition("\n")[0]
            if "meta" not in told.lower():
                raise
            return [told]
    return brought.calls
