"""QUANTIZE on a GPU, with every OFFLOAD that goes with it: pictures near the whole model's, and weights that move."""

import math
from typing import Any

import numpy as np
import pytest

from tests.helpers.every_kind import JOBS, Pictures, drawn, equipped
from tests.helpers.tiny_addons import FAMILIES, Kits, denoiser
from worker.engine.memory_plan import MemoryPlan, choose_memory_plan

bitsandbytes = pytest.importorskip("bitsandbytes")
torchao = pytest.importorskip("torchao.quantization")

KINDS = {"8bit": bitsandbytes.nn.Int8Params, "4bit": bitsandbytes.nn.Params4bit}
TRANSFORMERS = [family for family in FAMILIES if family in ("sd3", "flux")]


def decibels(ours: Pictures, theirs: Pictures) -> float:
    """The peak signal-to-noise ratio; infinite for equal ones."""
    assert theirs[0].std() > 1, "an empty picture proves nothing"
    error = np.mean([np.square(one - other).mean() for one, other in zip(ours, theirs, strict=True)])
    return 10 * math.log10(255**2 / error) if error else math.inf


@pytest.mark.parametrize(
    ("bits", "offload", "least"),
    [("8bit", "none", 30.0), ("4bit", "none", 20.0), ("4bit", "model", 20.0), ("4bit", "group", 20.0)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_job_hardly_differs(family: str, bits: str, offload: str, least: float, kits: Kits) -> None:
    prompted = family in ("sd3", "flux")  # quantised UNets take no IP-Adapter
    whole = equipped(kits, family, prompted)
    fewer = equipped(kits, family, prompted, QUANTIZE=bits, OFFLOAD=offload)
    jobs = [job for job in JOBS if prompted or "ip_adapter" not in job]

    near = [decibels(drawn(fewer, **job), drawn(whole, **job)) for job in jobs]

    print(f"\n{family} in {bits}, offload {offload}: {', '.join(f'{one:.1f}' for one in near)} dB")
    assert min(near) > least
    assert near[0] == near[2] == near[-1], "jobs without anything beside them"
    quantised = [weight for weight in denoiser(fewer.pipeline).parameters() if isinstance(weight, KINDS[bits])]
    assert quantised
    assert {weight.device.type for weight in quantised} == {"cuda" if offload == "none" else "cpu"}


@pytest.mark.parametrize("offload", ["none", "model", "group"])
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_every_kind_of_job_hardly_differs_in_fp8(family: str, offload: str, kits: Kits) -> None:
    whole, fewer = equipped(kits, family), equipped(kits, family, QUANTIZE="fp8", OFFLOAD=offload)

    near = [decibels(drawn(fewer, **job), drawn(whole, **job)) for job in JOBS]

    print(f"\n{family} in fp8, offload {offload}: {', '.join(f'{one:.1f}' for one in near)} dB")
    assert min(near) > 30
    assert near[0] == near[2] == near[-1], "jobs without anything beside them"
    weights = [one for one in denoiser(fewer.pipeline).parameters() if isinstance(one, torchao.Float8Tensor)]
    assert weights
    assert {weight.qdata.device.type for weight in weights} == {"cuda" if offload == "none" else "cpu"}


@pytest.mark.parametrize("bits", KINDS)
def test_what_loading_left_on_the_device_counts_as_free(bits: str, kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.memory.free_memory", lambda _: 10**9)
    planned: list[int] = []

    def plan(sizes: Any, pixels: int, free: int, *others: Any) -> MemoryPlan:
        planned.append(free)
        return choose_memory_plan(sizes, pixels, free, *others)

    monkeypatch.setattr("worker.engine.memory.choose_memory_plan", plan)
    equipped(kits, "flux", QUANTIZE=bits)

    assert planned[0] > 10**9
