"""Which pictures an accepted request asks for: how many, of what size, in which order, each from which seed."""

import pytest

from tests.helpers.asking import SD1, SDXL, ask, ask_output, model_of, refusal


def _seeds(**fields: object) -> list[int]:
    return [picture.seed for picture in ask(**fields).pictures]


def test_what_is_left_out_is_the_familys_default() -> None:
    request = ask(SDXL)
    assert (request.width, request.height) == (1024, 1024)
    assert (request.num_inference_steps, request.guidance_scale) == (25, 7.5)
    assert len(request.pictures) == 1 and request.warnings == ()
    output = ask_output()
    assert (output.format, output.format_fixed, output.quality, output.delivery) == ("png", False, 90, "auto")


@pytest.mark.parametrize(
    ("fields", "came"),
    [
        ({"width": 2048, "height": 1024}, "2048x1024"),
        ({"width": 8192}, "8192x512"),
        ({"height": 8192}, "512x8192"),
        ({"width": 2056}, "2056x512"),
    ],
)
def test_a_size_above_the_limit_is_refused_by_number(fields: dict[str, int], came: str) -> None:
    told = refusal(**fields)
    assert came in told and str(SD1.max_pixels) in told


def test_a_size_above_the_limit_is_told_under_a_field_that_the_caller_gave() -> None:
    assert refusal(width=8192).startswith("width: got 8192; ")
    assert refusal(height=8192).startswith("height: got 8192; ")


def test_the_limit_itself_is_allowed_and_the_owner_may_lower_it() -> None:
    assert ask(width=1024, height=1024).width == 1024
    small = model_of("sd1", max_pixels=512 * 512)
    assert ask(small).width == 512
    assert str(512 * 512) in refusal(small, width=520)


@pytest.mark.parametrize(("family", "step"), [("sd1", 8), ("sdxl", 8), ("sd3", 16), ("flux-dev", 16)])
def test_a_size_between_steps_is_rounded_with_a_warning(family: str, step: int) -> None:
    model = model_of(family)
    for side in (513, 512 + step - 1):
        request = ask(model, width=side, height=512)
        assert request.width % step == 0 and abs(request.width - side) < step
        (warning,) = request.warnings
        assert warning.startswith("width: ") and str(side) in warning and str(request.width) in warning
    assert ask(model, width=512, height=512 + step).warnings == ()


def test_rounding_never_passes_the_limit() -> None:
    """A size is accepted as asked or refused as asked; what is drawn is never larger than the limit."""
    limited = model_of("sd1", max_pixels=1000 * 999)
    request = ask(limited, width=1000, height=999)
    assert request.width * request.height <= 1000 * 999


def test_a_model_without_a_native_size_that_fits_its_owner_s_limit_says_so() -> None:
    told = refusal(model_of("sdxl", max_pixels=512 * 512))
    assert str(512 * 512) in told and "1024x1024" in told


def test_pictures_come_prompt_by_prompt() -> None:
    request = ask(prompt=["a", "b"], num_images=2, seed=10)
    assert [(picture.prompt, picture.seed) for picture in request.pictures] == [
        ("a", 10),
        ("a", 11),
        ("b", 12),
        ("b", 13),
    ]


def test_a_list_of_seeds_gives_one_to_each_picture_in_order() -> None:
    request = ask(prompt=["a", "b"], num_images=2, seed=[5, 3, 2**32 + 1, 0])
    assert [(picture.prompt, picture.seed) for picture in request.pictures] == [("a", 5), ("a", 3), ("b", 1), ("b", 0)]


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_a_list_of_seeds_of_another_length_is_refused_by_number(seeds: list[int]) -> None:
    told = refusal(num_images=2, seed=seeds)
    assert told.startswith("seed: ") and "2" in told and str(len(seeds)) in told


def test_seeds_wrap_at_2_to_the_32() -> None:
    assert _seeds(seed=2**32) == [0]
    assert _seeds(seed=2**32 + 7) == [7]
    assert _seeds(seed=2**64 - 1) == [2**32 - 1]
    assert _seeds(seed=2**32 - 1, num_images=3) == [2**32 - 1, 0, 1]


@pytest.mark.parametrize("fields", [{}, {"seed": None}, {"seed": -1}, {"seed": [-1]}, {"seed": [None]}])
def test_without_a_seed_each_job_has_another_and_it_can_be_asked_for_again(fields: dict[str, object]) -> None:
    seeds = [seed for _ in range(8) for seed in _seeds(**fields)]
    assert len(set(seeds)) > 1 and all(0 <= seed < 2**32 for seed in seeds)
    assert _seeds(seed=seeds[0]) == [seeds[0]]


def test_a_random_job_counts_up_and_a_random_place_in_a_list_stays_alone() -> None:
    first, second = _seeds(num_images=2)
    assert second == (first + 1) % 2**32
    one, other, fixed = _seeds(num_images=3, seed=[-1, None, 7])
    assert one != other and fixed == 7


def test_the_number_of_pictures_counts_all_prompts() -> None:
    assert len(ask(prompt=["a"] * 8, num_images=2).pictures) == 16
    told = refusal(prompt=["a"] * 8, num_images=3)
    assert told.startswith("num_images: got 3; ") and "16" in told and "8 prompts" in told
    assert "4" in refusal(model_of("sd1", max_images=4), num_images=5)


def test_too_many_prompts_are_told_under_a_field_that_the_caller_gave() -> None:
    assert refusal(prompt=["a"] * 17).startswith("prompt: ")


def test_steps_are_bounded_by_scheduler_and_owner() -> None:
    told = refusal(model_of("sd1", max_steps=30), num_inference_steps=31)
    assert told.startswith("num_inference_steps: got 31; ") and "30" in told
    assert refusal(num_inference_steps=1).startswith("num_inference_steps: got 1; LMS")  # it needs two
    assert ask(num_inference_steps=1, scheduler="Euler").num_inference_steps == 1


def test_a_default_never_passes_the_owners_limit() -> None:
    assert ask(model_of("sd1", max_steps=30)).num_inference_steps == 30
