"""Is a part that libraries build from files what these hold: no more layers, all of its weights, and those numbers?"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from worker.errors import ModelError

MAX_WEIGHTS = 1_000  # that a part may have beside some for each tensor of its files
MAX_WEIGHTS_PER_TENSOR = 10  # some are made several times while a part is read
MAX_NUMBER = 1e6  # of a weight; beyond, products of a few layers are no numbers any more


@contextmanager
def limit_weights(what: str, files: Iterable[Path]) -> Iterator[None]:
    """Let a part be built inside the `with` that has not many more weights than these files.

    A config may ask for a billion layers, and would have them before anybody looks whether there are weights for them.

    Raises:
        ModelError: it has.
    """
    with limit_layers(what, sum(_count_tensors(file) for file in files)):
        yield


@contextmanager
def limit_layers(what: str, tensors: int) -> Iterator[None]:
    """The same, where it is known how many tensors these files have.

    Raises:
        ModelError: as there.
    """
    left = MAX_WEIGHTS + MAX_WEIGHTS_PER_TENSOR * tensors

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ModelError(f"{what}: its config asks for many more layers than the {tensors} tensors of its files")

    hook: Any = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def check_weights(part: nn.Module, what: str) -> None:
    """Check that every weight of a part is there and a finite number, in the format that it is computed in.

    Args:
        what: the message up to the reason.

    Raises:
        ModelError: names the first that is not.
    """
    for name, weight in part.named_parameters():
        if weight.is_meta:
            raise ModelError(f"{what}: {name} is missing")
        if problem := find_bad_number(weight):
            raise ModelError(f"{what}: {name} holds {problem}")


def find_bad_number(tensor: Tensor) -> str | None:
    """What of a tensor nothing can be computed with, if anything; it takes no second tensor of its size."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    values = tensor.detach()
    ends = torch.aminmax(values if values.element_size() > 1 else values.float())  # float8 has no order
    low, high = float(ends.min), float(ends.max)
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"NaN or infinity as {str(tensor.dtype).removeprefix('torch.')}"
    largest = max(low, high, key=abs)
    return None if abs(largest) <= MAX_NUMBER else f"{largest:g}; allowed are numbers up to {MAX_NUMBER:g}"


def _count_tensors(file: Path) -> int:
    with safe_open(file, framework="np") as opened:
        return len(opened.keys())
