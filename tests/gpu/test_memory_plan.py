"""Full-size SDXL in 8 GB and FLUX in 24 GB: the plan that is chosen by free memory draws without running out.

Architectures are the published ones; weights are random. The card's other memory is taken by a filler, so that the
worker finds as much free as on the smaller card.
"""

from typing import Any

import pytest
import torch

from benchmarks.full_size import flux, sdxl
from tests.helpers.card import DEVICE, filled
from worker.engine.load.describe import describe
from worker.engine.load.fp8 import keep_in_fp8
from worker.engine.memory import place_weights, plan_memory
from worker.engine.memory_plan import MemoryPlan, Quantize
from worker.models.adapters import find_adapters
from worker.settings import Settings

GB = 10**9


def draw_on_card(pipeline: Any, gigabytes: int, quantize: Quantize = "none") -> tuple[MemoryPlan, float]:
    """Plan, place and draw a picture of native size in two steps; the plan and the peak in GB."""
    if quantize == "fp8":
        keep_in_fp8(pipeline, DEVICE)
    model = describe(pipeline, "full size", Settings(), find_adapters(Settings()))
    pipeline.set_progress_bar_config(disable=True)
    with filled(leaving=gigabytes * GB):
        held = torch.cuda.memory_allocated()
        plan = plan_memory(model, [pipeline], [], None, [DEVICE], quantize)
        place_weights([pipeline], [], plan, [DEVICE])
        image = pipeline("a star", num_inference_steps=2, width=model.width, height=model.height).images[0]
        peak = (torch.cuda.max_memory_reserved() - held) / GB
        assert image.size == (model.width, model.height)
    print(f"\n{type(pipeline).__name__} on {gigabytes} GB: {plan.reason}; peak {peak:.2f} GB reserved")
    return plan, peak


@pytest.mark.parametrize(("gigabytes", "offload"), [(8, "model"), (24, "none")])
def test_sdxl(gigabytes: int, offload: str) -> None:
    plan, peak = draw_on_card(sdxl(), gigabytes)

    assert plan.offload == offload
    assert peak < gigabytes


@pytest.mark.parametrize(("gigabytes", "offload"), [(24, "group"), (48, "none")])
def test_flux(gigabytes: int, offload: str) -> None:
    plan, peak = draw_on_card(flux(), gigabytes)

    assert plan.offload == offload
    assert peak < gigabytes


@pytest.mark.parametrize(("gigabytes", "offload"), [(16, "group"), (24, "none")])
def test_flux_in_fp8(gigabytes: int, offload: str) -> None:
    plan, peak = draw_on_card(flux(), gigabytes, "fp8")

    assert plan.offload == offload
    assert peak < gigabytes
