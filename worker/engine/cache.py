"""What was computed for one job and is kept for later ones, within bounds; the least recently used goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from torch import Tensor

MAX_BYTES = 128_000_000  # some four hundred prompts of Stable Diffusion XL, thirty of FLUX
MAX_ENTRIES = 1_000

T = TypeVar("T")


class TensorCache:
    """Values with tensors in them, by key. Whoever gets one must not change it in place."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES) -> None:
        """Nothing is kept yet."""
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes = 0

    def recall(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was kept under this key; made now, and kept, if nothing is."""
        if key not in self._kept:
            self._keep(key, make())
        self._kept.move_to_end(key)
        value: T = self._kept[key]
        self._forget_beyond_bounds()
        return value

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0

    def _keep(self, key: Hashable, value: object) -> None:
        self._kept[key] = value
        self._bytes += _count_bytes(value)

    def _forget_beyond_bounds(self) -> None:
        while self._bytes > self._max_bytes or len(self._kept) > self._max_entries:
            _, value = self._kept.popitem(last=False)
            self._bytes -= _count_bytes(value)


def _count_bytes(value: object) -> int:
    parts = value.values() if isinstance(value, Mapping) else vars(value).values()
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))
