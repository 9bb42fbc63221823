"""The memory plan is the fastest that fits; its arithmetic on the weights of full-size models, in bytes of 16 bits."""

import logging
from typing import Any

import pytest
import torch

from tests.helpers import tiny_models, tiny_transformers
from worker.engine.denoiser.cuda_graphs import Work
from worker.engine.denoiser.runner import DecoderRunner
from worker.engine.load.acceleration import choose_graphs, wants_graphs
from worker.engine.memory import find_graph_needs
from worker.engine.memory_plan import DECODE, DENOISE, LOOK, RESERVE, GraphNeeds, MemoryPlan, choose_memory_plan
from worker.settings import Settings

GB = 10**9
SDXL = {"vae": 170_000_000, "text_encoder": 250_000_000, "text_encoder_2": 1_390_000_000, "unet": 5_130_000_000}
FLUX = {"vae": 170_000_000, "text_encoder": 250_000_000, "text_encoder_2": 9_520_000_000, "transformer": 23_800_000_000}
MEGAPIXEL = 1024 * 1024


@pytest.mark.parametrize(
    ("sizes", "gigabytes", "offload"),
    [
        (SDXL, 24, "none"),
        (SDXL, 12, "none"),
        (SDXL, 8, "model"),
        (SDXL, 4, "group"),
        (FLUX, 80, "none"),
        (FLUX, 32, "model"),
        (FLUX, 24, "group"),
    ],
)
def test_less_memory_means_a_slower_plan_that_fits(sizes: dict[str, int], gigabytes: int, offload: str) -> None:
    plan = choose_memory_plan(sizes, MEGAPIXEL, gigabytes * GB, None)

    assert plan.offload == offload
    assert f"{gigabytes:.1f} GB free" in plan.reason


def test_tiles_come_before_offload() -> None:
    assert not choose_memory_plan(SDXL, MEGAPIXEL, 24 * GB, None).tiling
    assert choose_memory_plan(SDXL, MEGAPIXEL, 12 * GB, None).tiling


@pytest.mark.parametrize("wanted", ["none", "model", "group"])
def test_the_owners_choice_is_kept_however_little_memory_there_is(wanted: str) -> None:
    for free in (1 * GB, 80 * GB):
        plan = choose_memory_plan(FLUX, MEGAPIXEL, free, wanted)
        assert plan.offload == wanted
        assert "OFFLOAD says so" in plan.reason


def test_what_does_not_fit_even_so_is_said_not_to() -> None:
    assert choose_memory_plan(FLUX, MEGAPIXEL, 24 * GB, None).fits
    assert not choose_memory_plan(FLUX, MEGAPIXEL, 24 * GB, "none").fits
    assert not choose_memory_plan(FLUX, MEGAPIXEL, 24 * GB, None, "8bit").fits
    assert not choose_memory_plan(FLUX, MEGAPIXEL, 1 * GB, None).fits


def test_pictures_that_are_looked_at_count_while_the_denoiser_works() -> None:
    weights, seen = sum(SDXL.values()), 4 * MEGAPIXEL
    needed = weights + MEGAPIXEL * DENOISE + seen * LOOK + RESERVE

    enough, less = (choose_memory_plan(SDXL, MEGAPIXEL, free, None, seen=seen) for free in (needed, needed - 1))

    assert (enough.offload, enough.fits) == ("none", True)
    assert less.offload == "model"
    assert choose_memory_plan(SDXL, MEGAPIXEL, needed - 1, None).offload == "none", "without them"


def test_a_graph_of_a_denoiser_takes_what_it_looks_at_once_more() -> None:
    seen, needs = 9 * MEGAPIXEL, GraphNeeds(decoder=False)
    needed = sum(SDXL.values()) + 2 * (MEGAPIXEL * DENOISE + seen * LOOK) + RESERVE

    enough, less = (
        choose_memory_plan(SDXL, MEGAPIXEL, free, None, graphs=needs, seen=seen) for free in (needed, needed - 1)
    )

    assert (enough.graphs, less.graphs) == ("denoiser", "none")


COPIES = 297_000_000  # of the decoder of Stable Diffusion XL


@pytest.mark.parametrize(
    ("gigabytes", "tiling", "graphs"),
    [(48, False, "all"), (24, False, "denoiser"), (12, True, "all"), (10.5, True, "none")],
)
def test_graphs_are_counted_before_they_are_promised(gigabytes: float, tiling: bool, graphs: str) -> None:
    plan = choose_memory_plan(SDXL, MEGAPIXEL, int(gigabytes * GB), None, graphs=GraphNeeds(copies=COPIES))

    assert (plan.offload, plan.tiling, plan.graphs, plan.fits) == ("none", tiling, graphs, True)
    assert ("GB for graphs, the" in plan.reason) == (graphs != "none")
    assert ("the denoiser's pass alone" in plan.reason) == (graphs == "denoiser")
    assert ("no graphs of passes, for which it would be about 10.3 GB" in plan.reason) == (graphs == "none")


@pytest.mark.parametrize(
    ("needs", "again", "graphs"),
    [
        (GraphNeeds(copies=COPIES), MEGAPIXEL * DECODE + COPIES, "all"),
        (GraphNeeds(decoder=False), MEGAPIXEL * DENOISE, "denoiser"),
    ],
)
def test_graphs_take_the_largest_pass_once_more_and_the_copies(needs: GraphNeeds, again: int, graphs: str) -> None:
    needed = sum(SDXL.values()) + MEGAPIXEL * DECODE + again + RESERVE

    enough, less = (choose_memory_plan(SDXL, MEGAPIXEL, free, None, graphs=needs) for free in (needed, needed - 1))

    assert (enough.graphs, enough.tiling) == (graphs, False)
    assert (less.graphs, less.tiling) != (graphs, False)


def test_a_pass_has_half_of_what_is_beside_the_weights_and_its_graph_the_other() -> None:
    plain, graphs = (choose_memory_plan(SDXL, MEGAPIXEL, 80 * GB, None, graphs=one) for one in (None, GraphNeeds()))

    assert graphs.room == plain.room // 2 > 0


def test_beside_a_graph_of_the_denoiser_a_picture_can_be_decoded() -> None:
    plan = choose_memory_plan(SDXL, MEGAPIXEL, 24 * GB, None, graphs=GraphNeeds())

    assert plan.graphs == "denoiser"
    assert sum(SDXL.values()) + plan.room + MEGAPIXEL * DECODE + RESERVE <= 24 * GB


@pytest.mark.parametrize("wanted", ["model", "group"])
def test_weights_that_travel_leave_nothing_to_graphs(wanted: Any) -> None:
    plan = choose_memory_plan(SDXL, MEGAPIXEL, 80 * GB, wanted, graphs=GraphNeeds())

    assert plan.graphs == "none"


class Recorder:
    """In place of the engine's graphs: what would become one."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def run(self, work: Work, *_: Any, **__: Any) -> None:
        self.works.append(work)


def test_the_copies_of_a_decoder_that_is_cast_are_those_that_are_made() -> None:
    pipeline = tiny_models.sdxl().to(torch.float16)
    needs, runner, graphs = find_graph_needs(pipeline), DecoderRunner(pipeline.vae), Recorder()
    runner.graphs = graphs  # type: ignore[assignment]

    pipeline.vae.decoder(torch.zeros(1))
    pipeline.vae.to(torch.float32)
    pipeline.vae.decoder(torch.zeros(1))

    own, copied = graphs.works
    assert own.module is pipeline.vae.decoder and copied.compiled_as is not None
    made = [weight for module in (copied.module, copied.compiled_as.module) for weight in module.parameters()]
    assert needs.decoder and needs.copies == sum(weight.nbytes for weight in made) > 0


@pytest.mark.parametrize(("make", "decoder"), [(tiny_models.sd1, True), (tiny_transformers.qwen, False)])
def test_where_no_decoder_is_cast_there_are_no_copies(make: Any, decoder: bool) -> None:
    assert find_graph_needs(make().to(torch.float16)) == GraphNeeds(decoder=decoder, copies=0)


def test_without_room_for_graphs_passes_run_as_they_are_written(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(acceleration="graphs")
    plan = MemoryPlan("none", True, "")
    with caplog.at_level(logging.INFO, "worker"):
        assert choose_graphs(settings, plan, torch.device("cuda"), pytest.fail) is None
    assert caplog.messages == ["acceleration off: no memory for graphs beside the weights"]


@pytest.mark.parametrize(
    ("acceleration", "quantize", "wanted"),
    [("off", "none", False), ("auto", "none", True), ("compile", "none", True), ("graphs", "fp8", False)],
)
def test_graphs_are_planned_where_they_are_wished(acceleration: Any, quantize: Any, wanted: bool) -> None:
    assert wants_graphs(Settings(acceleration=acceleration, quantize=quantize)) == wanted
