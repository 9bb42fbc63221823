"""Weights that threads bring to a device in pieces: every byte, each once, whatever its shape and number format."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from worker.engine import bring
from worker.engine.bring import Chunk


class Plain:
    """Copies at once, in the thread that asks."""

    def carry(self, chunks: Iterable[Chunk]) -> None:
        for source, target in chunks:
            target.copy_(source)


class Broken(Plain):
    def carry(self, chunks: Iterable[Chunk]) -> None:
        raise RuntimeError("CUDA error: out of memory")


WEIGHTS = [
    torch.randn(300, 7),
    torch.randn(64, 3, 3, 3).half(),
    torch.randn(5).bfloat16(),
    torch.arange(77).expand(1, -1).contiguous(),
    torch.tensor(3),
    torch.tensor([True, False]),
]


def test_every_byte_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring, "CHUNK", 100)
    there = [torch.zeros_like(weight) for weight in WEIGHTS]
    bring.carry(WEIGHTS, there, [Plain(), Plain(), Plain()])
    assert all(torch.equal(one, other) for one, other in zip(there, WEIGHTS, strict=True))


def test_what_goes_wrong_in_a_thread_is_heard() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        bring.carry(WEIGHTS, [torch.zeros_like(weight) for weight in WEIGHTS], [Plain(), Broken()])


def test_what_is_no_plain_number_or_laid_out_otherwise_is_left() -> None:
    part = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last))
    part.register_buffer("nothing", torch.zeros(0))
    part.register_buffer("positions", torch.arange(3))
    part.register_parameter("elsewhere", nn.Parameter(torch.zeros(2, device="meta")))
    found = {id(weight) for weight in bring._list_plain(part)}
    expected = [part[0].weight, part[0].bias, part[1].bias, part.positions]
    assert found == {id(weight) for weight in expected}
