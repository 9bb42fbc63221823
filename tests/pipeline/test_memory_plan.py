"""The memory plan is the fastest that fits; its arithmetic on the weights of full-size models, in bytes of 16 bits."""

import pytest

from worker.engine.memory import choose_memory_plan

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
