"""What a request may ask: every bad field is named in one answer, with what came and what is allowed.

The sizes, seeds and pictures of accepted requests are in test_pictures_asked_for.py.
"""

import json

import pytest

from tests.helpers.asking import SD1, SDXL, ask, model_of, refusal
from worker.api.parse import parse
from worker.errors import InvalidInputError

PICTURES = ["image", "mask", "loras", "controlnet", "ip_adapter", "clip_skip", "hires", "preview", "replay"]


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("width", 64, 8192),
        ("height", 64, 8192),
        ("num_inference_steps", 2, 500),
        ("guidance_scale", 0, 50),
        ("num_images", 1, 16),
        ("quality", 1, 100),
        ("seed", -1, 2**64 - 1),
        ("strength", 0, 1),
        ("refiner_inference_steps", 1, 500),
    ],
)
def test_bounds_are_inclusive_and_one_more_is_refused_by_number(field: str, low: int, high: int) -> None:
    roomy = model_of("sd1", max_pixels=8192 * 512)
    for allowed in (low, high):
        ask(roomy, **{field: allowed})
    for refused in (low - 1, high + 1):
        assert refusal(roomy, **{field: refused}).startswith(f"{field}: got {refused}; ")


def test_every_bad_field_is_told_at_once() -> None:
    told = refusal(width=-1, num_images=0, seed="seven", guidance_scale=51, scheduler="wizard", quality=101, promt="x")
    for name in ("width", "num_images", "seed", "guidance_scale", "scheduler", "quality", "promt"):
        assert f"{name}: " in told, told
    for came in ("-1", "0", "'seven'", "51", "'wizard'", "101"):
        assert f"got {came}; " in told, told
    assert "50" in told and "100" in told  # what is allowed


def test_a_bad_value_is_told_under_the_name_the_caller_wrote() -> None:
    assert refusal(steps=0).startswith("steps: got 0; ")
    assert refusal(cfg_scale="high").startswith("cfg_scale: got 'high'; ")


@pytest.mark.parametrize("prompt", [5, None, True, [], [5], {"text": "x"}, "x" * 10_001])
def test_a_prompt_is_text_or_a_list_of_texts(prompt: object) -> None:
    assert refusal(prompt=prompt).startswith("prompt")


def test_a_prompt_is_required() -> None:
    with pytest.raises(InvalidInputError, match="prompt: required"):
        parse({"input": {}}, SD1)[0]


@pytest.mark.parametrize("given", [None, [], "a red square", 5, True])
def test_an_input_that_is_no_object_is_named(given: object) -> None:
    with pytest.raises(InvalidInputError, match=r"input: got .* object"):
        parse({"input": given}, SD1)[0]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("promt", "prompt"),
        ("num_inference_step", "num_inference_steps"),
        ("guidence_scale", "guidance_scale"),
        ("negativ_prompt", "negative_prompt"),
        ("Seed", "seed"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(wrong: str, nearest: str) -> None:
    told = refusal(**{wrong: 1})
    assert told.startswith(f"{wrong}: got 1; unknown field") and nearest in told


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 100_000, "prompt\0"], ids=lambda name: ascii(name)[:10])
@pytest.mark.parametrize("value", [1, {}, {"a": 1}, [1], "x" * 100_000], ids=lambda value: ascii(value)[:10])
def test_a_strange_name_is_refused_without_a_flood(name: str, value: object) -> None:
    told = refusal(**{name: value})
    assert len(told) < 300
    told.encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [("num_images", "num_outputs"), ("num_inference_steps", "steps"), ("guidance_scale", "cfg_scale")],
)
def test_two_spellings_of_one_field_are_refused(one: str, other: str) -> None:
    for fields in ({one: 3, other: 4}, {other: 4, one: 3}):
        told = refusal(**fields)
        assert one in told and other in told and "give one of them" in told


@pytest.mark.parametrize(
    "name",
    ["negative_prompt", "width", "num_images", "scheduler", "output_format", "quality", "delivery", "nsfw", *PICTURES],
)
def test_null_counts_as_left_out_and_is_said(name: str) -> None:
    request = ask(**{name: None, "seed": 1})
    assert [warning for warning in request.warnings if warning.startswith(f"{name}: ")]
    assert request.pictures == ask(seed=1).pictures


def test_a_null_seed_is_a_wish_not_a_slip() -> None:
    assert ask(seed=None).warnings == ()


@pytest.mark.parametrize(
    "name", ["width", "height", "num_inference_steps", "guidance_scale", "num_images", "quality", "seed"]
)
@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        "x12",
        "",
        "0x200",
        "5_12",
        "٥١٢",
        "1e999",
        [],
        [[]],
        {},
        float("nan"),
        float("inf"),
        float("-inf"),
        10**50,
        -(10**50),
        10**5000,
    ],
    ids=lambda value: repr(value)[:12] if not isinstance(value, int) else value.__class__.__name__,
)
def test_what_is_no_number_of_reasonable_size_is_refused(name: str, value: object) -> None:
    told = refusal(**{name: value})
    assert told.startswith(f"{name}") and len(told) < 300


def test_json_that_overflows_is_refused() -> None:
    for text in ("1e999", "-1e999", "NaN", "Infinity"):
        for name in ("guidance_scale", "width", "strength"):
            assert refusal(**json.loads(f'{{"{name}": {text}}}')).startswith(f"{name}: got ")


@pytest.mark.parametrize("value", [512.5, 512.0000001])
def test_a_size_is_a_whole_number(value: float) -> None:
    assert refusal(width=value).startswith("width: ")


@pytest.mark.parametrize("name", ["prompt", "negative_prompt", "scheduler", "output_format"])
def test_a_lone_surrogate_is_refused_and_the_answer_can_be_sent(name: str) -> None:
    """JSON may carry one, UTF-8 may not: an answer that repeats it could not be posted."""
    told = refusal(**json.loads(f'{{"{name}": "a \\ud800 square"}}'))
    assert told.startswith(f"{name}: ")
    told.encode()


@pytest.mark.parametrize("name", ["prompt", "seed", "refiner", "width", "something"])
def test_deep_nesting_is_refused_without_a_flood(name: str) -> None:
    nested: object = 1
    for _ in range(5_000):
        nested = [nested]
    assert len(refusal(**{name: nested})) < 300
    assert len(refusal(**{name: {"a": nested}})) < 300


def test_a_flood_of_bad_fields_is_answered_with_less_than_came() -> None:
    fields = {f"field{i}": "x" * 1_000 for i in range(1_000)}
    assert len(refusal(**fields)) < len(json.dumps(fields)) / 4


def test_fields_that_only_tune_something_absent_are_accepted_with_a_warning() -> None:
    tuning = {"strength": 0.3, "lora_scale": 1.0, "high_noise_frac": 0.8, "refiner_inference_steps": 50, "nsfw": True}
    warnings = ask(SDXL, **tuning).warnings + ask(SDXL, refiner={"steps": 5}).warnings
    assert all(any(warning.startswith(f"{name}: ") for warning in warnings) for name in (*tuning, "refiner"))
    assert ask(nsfw=False).warnings == ()


def test_flux_refuses_a_negative_prompt() -> None:
    for family in ("flux-schnell", "flux-dev"):
        told = refusal(model_of(family), negative_prompt="blurry")
        assert told.startswith("negative_prompt: got 'blurry'; FLUX")
        assert ask(model_of(family), negative_prompt="").negative_prompt in ("", None)


def test_schnell_warns_that_guidance_is_built_in() -> None:
    (warning,) = ask(model_of("flux-schnell"), guidance_scale=7.5).warnings
    assert warning.startswith("guidance_scale: ")
    assert ask(model_of("flux-dev"), guidance_scale=7.5).warnings == ()


def test_a_job_cannot_turn_the_safety_checker_off_or_on() -> None:
    assert refusal(model_of("sd1", safety_checker=True), safety_checker=False).startswith("safety_checker: got False; ")
    assert refusal(model_of("sd1", safety_checker=False), safety_checker=True).startswith("safety_checker: got True; ")
    ask(model_of("sd1", safety_checker=True), safety_checker=True)
