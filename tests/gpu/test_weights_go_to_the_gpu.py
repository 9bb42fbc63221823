"""Weights that threads bring to a GPU through pinned memory: the same numbers, from memory and from a mapped file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from worker.engine import bring
from worker.engine.bring import CHUNK, WORTH

DEVICE = torch.device("cuda", 0)


def a_part() -> nn.Module:
    """Enough to be worth it, in pieces larger and smaller than a chunk, one of them used twice."""
    large = nn.Linear(4000, 4000), nn.Linear(CHUNK // 1000, 1000)
    part = nn.Sequential(*large, *[nn.Linear(700, 700) for _ in range(150)])
    part[2].weight = part[3].weight
    part.register_buffer("positions", torch.arange(77))
    assert sum(weight.nbytes for weight in part.parameters()) > WORTH
    return part


@pytest.mark.parametrize("mapped", [False, True])
def test_the_numbers_are_the_same(mapped: bool, tmp_path: Path) -> None:
    part = a_part()
    weights = {name: weight.data.clone() for name, weight in part.state_dict().items()}
    if mapped:
        save_file({name: one.clone() for name, one in weights.items()}, tmp_path / "weights.safetensors")
        part.load_state_dict(load_file(tmp_path / "weights.safetensors"), assign=True)
        part[2].weight = part[3].weight
    before = {name: id(weight) for name, weight in part.named_parameters()}
    for _ in range(3):  # memory that something has just used is used again
        torch.randn(CHUNK, device=DEVICE).square().sum()
        bring.bring([part, part], DEVICE)
        assert {weight.device for weight in (*part.parameters(), *part.buffers())} == {DEVICE}
        assert {name: id(weight) for name, weight in part.named_parameters()} == before
        assert part[2].weight is part[3].weight
        assert all(torch.equal(part.state_dict()[name].cpu(), one) for name, one in weights.items())
        part.to("cpu")


def test_where_no_memory_can_be_pinned_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: torch.device) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(bring, "CudaLane", refuse)
    part = a_part()
    bring.bring([part], DEVICE)
    assert {weight.device.type for weight in part.parameters()} == {"cpu"}
