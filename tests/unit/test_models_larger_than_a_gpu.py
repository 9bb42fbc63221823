"""A model that is larger than one GPU is spread over several, each component whole on one of them, if they hold it."""

import pytest

from worker.engine.memory_plan import DENOISE, RESERVE
from worker.engine.spread import choose_places

GB = 10**9
SQUARE = 1024 * 1024
QWEN = {"transformer": 41 * GB, "text_encoder": 17 * GB, "vae": GB // 4}
FLUX2 = {"transformer": 64 * GB, "text_encoder": 48 * GB, "vae": GB // 4}
FLUX2_IN_FP8 = {"transformer": 33 * GB, "text_encoder": 25 * GB, "vae": GB // 4}
L40 = 47 * GB


@pytest.mark.parametrize("sizes", [QWEN, FLUX2_IN_FP8])
def test_two_of_48_gb_hold_it(sizes: dict[str, int]) -> None:
    assert choose_places(sizes, SQUARE, [L40]) is None
    assert choose_places(sizes, SQUARE, [L40, L40]) == {"transformer": 0, "text_encoder": 1, "vae": 1}


def test_a_denoiser_larger_than_each_is_held_by_none() -> None:
    assert choose_places(FLUX2, SQUARE, [L40] * 4) is None


def test_pictures_are_drawn_on_the_first_whatever_it_has() -> None:
    assert choose_places(QWEN, SQUARE, [44 * GB, 80 * GB, 24 * GB]) == {"transformer": 0, "text_encoder": 1, "vae": 1}
    assert choose_places(QWEN, SQUARE, [24 * GB, 80 * GB, 80 * GB]) is None


def test_what_a_pass_works_with_counts() -> None:
    need = QWEN["transformer"] + RESERVE + DENOISE * SQUARE
    assert choose_places(QWEN, SQUARE, [need, L40]) is not None
    assert choose_places(QWEN, SQUARE, [need - 1, L40]) is None


def test_each_of_several_text_encoders_has_a_place() -> None:
    sizes = {"transformer": 34 * GB, "text_encoder": GB // 4, "text_encoder_2": 10 * GB, "text_encoder_4": 16 * GB}
    places = choose_places(sizes, SQUARE, [40 * GB, 18 * GB, 12 * GB])
    assert places is not None
    assert (places["transformer"], places["text_encoder_4"], places["text_encoder_2"]) == (0, 1, 2)


def test_both_denoisers_of_a_model_with_a_refiner_are_on_the_first() -> None:
    places = choose_places(
        {"unet": 5 * GB, "refiner unet": 4 * GB, "text_encoder_2": GB, "vae": GB}, SQUARE, [24 * GB] * 2
    )
    assert places is not None and places["unet"] == places["refiner unet"] == 0
