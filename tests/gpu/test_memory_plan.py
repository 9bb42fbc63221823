"""Models in full size, from SDXL in 8 GB to FLUX.2 in 141: the plan that is chosen by free memory draws without
running out, on one card or on two.

Architectures are the published ones; weights are random. The card's other memory is taken by a filler, so that the
worker finds as much free as on the smaller card.
"""

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from benchmarks import full_size
from tests.helpers import tiny_flows, tiny_transformers
from tests.helpers.card import DEVICE, filled
from worker.engine import memory
from worker.engine.load.describe import describe
from worker.engine.load.fp8 import keep_in_fp8
from worker.engine.memory import place_weights, plan_memory
from worker.engine.memory_plan import MemoryPlan, Quantize
from worker.engine.pipelines import stay_on
from worker.models.adapters import find_adapters
from worker.settings import Settings

GB = 10**9


def draw_on_card(
    pipeline: Any, gigabytes: int, quantize: Quantize = "none", devices: Sequence[torch.device] = (DEVICE,)
) -> MemoryPlan:
    """Plan, place and draw a picture of native size in two steps, on cards that have no more than this."""
    if quantize == "fp8":
        keep_in_fp8(pipeline, DEVICE)
    if len(devices) > 1:  # where it goes anyway: the first, as large as the filler leaves it, has no room for both
        pipeline.text_encoder.to(devices[1])
    model = describe(pipeline, "full size", Settings(), find_adapters(Settings()))
    pipeline.set_progress_bar_config(disable=True)
    there = [sum(memory.weight_sizes([pipeline], device=device).values()) for device in devices]
    with ExitStack() as fillers:
        for device, bytes_there in zip(devices, there, strict=True):
            fillers.enter_context(filled(gigabytes * GB - bytes_there, device))
        held = [torch.cuda.memory_reserved(device) for device in devices]
        plan = plan_memory(model, [pipeline], [], None, devices, quantize)
        place_weights([pipeline], [], plan, devices)
        if plan.offload == "none":
            stay_on(pipeline, devices[0])
        image = pipeline(prompt="a star", num_inference_steps=2, width=model.width, height=model.height).images[0]
        peaks = [
            (torch.cuda.max_memory_reserved(device) - before + bytes_there) / GB
            for device, before, bytes_there in zip(devices, held, there, strict=True)
        ]
        assert image.size == (model.width, model.height)
    size = f"{len(devices)} of " * (len(devices) > 1) + f"{gigabytes} GB"
    told = " and ".join(f"{peak:.2f}" for peak in peaks)
    print(f"\n{type(pipeline).__name__} on {size}: {plan.reason}; peak {told} GB reserved")
    return plan


@pytest.mark.parametrize(("gigabytes", "offload"), [(8, "model"), (24, "none")])
def test_sdxl(gigabytes: int, offload: str) -> None:
    plan = draw_on_card(full_size.make("sdxl"), gigabytes)

    assert plan.offload == offload


@pytest.mark.parametrize(("gigabytes", "offload"), [(24, "group"), (48, "none")])
def test_flux(gigabytes: int, offload: str) -> None:
    plan = draw_on_card(full_size.make("flux"), gigabytes)

    assert plan.offload == offload


@pytest.mark.parametrize(("gigabytes", "offload"), [(16, "group"), (24, "none")])
def test_flux_in_fp8(gigabytes: int, offload: str) -> None:
    plan = draw_on_card(full_size.make("flux"), gigabytes, "fp8")

    assert plan.offload == offload


# As in docs/models.md: the smallest of RunPod's GPUs on which all of a model stays.
TODAY: dict[str, Callable[[], Any]] = {
    "FLUX.2 klein 4B": tiny_flows.flux2_klein,
    "Z-Image": tiny_flows.z_image,
    "FLUX.2 klein 9B": tiny_flows.flux2_klein,
    "Qwen-Image": tiny_transformers.qwen,
    "FLUX.2 dev": tiny_flows.flux2,
}


def in_full_size(title: str) -> Any:
    """Made on the card, for main memory would not hold the largest."""
    gc.collect()  # the last one
    return full_size.in_full_size(TODAY[title](), title, DEVICE)


@pytest.mark.parametrize(
    ("title", "gigabytes", "quantize"),
    [
        ("FLUX.2 klein 4B", 24, "none"),
        ("FLUX.2 klein 4B", 16, "fp8"),
        ("Z-Image", 24, "none"),
        ("Z-Image", 16, "fp8"),
        ("FLUX.2 klein 9B", 48, "none"),
        ("FLUX.2 klein 9B", 24, "fp8"),
        ("Qwen-Image", 80, "none"),
        ("Qwen-Image", 48, "fp8"),
        ("FLUX.2 dev", 141, "none"),
        ("FLUX.2 dev", 80, "fp8"),
    ],
)
def test_models_of_today(title: str, gigabytes: int, quantize: Quantize) -> None:
    plan = draw_on_card(in_full_size(title), gigabytes, quantize)

    assert plan.offload == "none"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("title", "quantize"), [("Qwen-Image", "none"), ("FLUX.2 dev", "fp8")])
def test_models_of_today_on_two_cards(title: str, quantize: Quantize) -> None:
    cards = [torch.device("cuda", number) for number in range(2)]
    plan = draw_on_card(in_full_size(title), 48, quantize, cards)

    assert (plan.offload, plan.places["transformer"], plan.places["text_encoder"]) == ("none", 0, 1)
