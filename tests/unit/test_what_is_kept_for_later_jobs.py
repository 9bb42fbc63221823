"""What is kept for later jobs is bounded, and is what was made."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from worker.engine.cache import TensorCache


@dataclass
class Made:
    """A hundred bytes, and no tensor."""

    features: Tensor
    pooled: Tensor | None = None


def make(number: int) -> Made:
    return Made(torch.full((100,), number, dtype=torch.uint8))


def recall(cache: TensorCache, number: int, made: list[int]) -> int:
    """What the cache gives for this number, which is made if need be, and then noted."""

    def note() -> Made:
        made.append(number)
        return make(number)

    return int(cache.recall(("key", number), note).features[0])


@pytest.mark.parametrize("cache", [TensorCache(max_bytes=300), TensorCache(max_entries=3)], ids=["bytes", "entries"])
def test_the_least_recently_used_goes_first(cache: TensorCache) -> None:
    made: list[int] = []
    assert [recall(cache, number, made) for number in (1, 2, 3, 1, 4, 1, 3, 4, 2)] == [1, 2, 3, 1, 4, 1, 3, 4, 2]
    assert made == [1, 2, 3, 4, 2]


def test_what_is_larger_than_all_room_is_given_and_not_kept() -> None:
    cache, made = TensorCache(max_bytes=99), []
    assert [recall(cache, 5, made) for _ in range(2)] == [5, 5]
    assert made == [5, 5]


def test_mappings_are_counted_as_well() -> None:
    cache = TensorCache(max_bytes=150)
    for name in ("a", "b", "a"):
        cache.recall(name, lambda: {"embeds": torch.zeros(25), "text": "no tensor"})
    made: list[str] = []
    cache.recall("b", lambda: {"made": made.append("b")})
    assert made == ["b"]


def test_what_fails_is_not_kept() -> None:
    cache = TensorCache()

    def fail() -> Made:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.recall("key", fail)
    assert cache.recall("key", lambda: make(1)).features[0] == 1
