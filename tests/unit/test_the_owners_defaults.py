"""An owner's default is what jobs get that name none, or the start is refused for it; a job's own word wins."""

import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.asking import ask, model_of, picture
from tests.helpers.fuzzing import examples
from worker.engine.load.defaults import apply_defaults
from worker.errors import SettingsError
from worker.models.capabilities import Capabilities
from worker.models.families import FAMILIES
from worker.settings import Settings

SIDES = st.integers(8, 260).map(lambda eighths: 8 * eighths) | st.integers(64, 8192)
CHOSEN = st.fixed_dictionaries(
    {},
    optional={
        "default_steps": st.integers(1, 600),
        "default_guidance_scale": st.floats(0, 50),
        "default_negative_prompt": st.text("ab, ", min_size=1, max_size=20),
        "default_size": st.tuples(SIDES, SIDES),
    },
)
LIMITED = model_of("sdxl", width=896, height=896, max_pixels=900_000, max_steps=30)
MODELS = [*(model_of(family.name) for family in FAMILIES), LIMITED]


def settings_of(chosen: dict[str, Any]) -> Settings:
    size = chosen.get("default_size")
    return Settings.model_construct(**{**chosen, **({"default_size": "x".join(map(str, size))} if size else {})})


def misfits(model: Capabilities, chosen: dict[str, Any]) -> set[str]:
    """Which of these no job could ask of this model, or not with effect."""
    width, height = chosen.get("default_size", (model.width, model.height))
    step, most = model.family.size_step, min(model.max_steps, model.scheduler.max_steps or model.max_steps)
    wrong = {
        "default_steps": not model.scheduler.min_steps <= chosen.get("default_steps", 2) <= most,
        "default_guidance_scale": model.family.guidance is None,
        "default_negative_prompt": not model.family.negative_prompt,
        "default_size": width % step + height % step > 0 or width * height > model.max_pixels,
    }
    return {name.upper() for name in chosen if wrong[name]}


@examples(300)
@given(st.sampled_from(MODELS), CHOSEN)
def test_what_fits_is_what_jobs_get_and_the_rest_is_named(model: Capabilities, chosen: dict[str, Any]) -> None:
    try:
        endpoint = apply_defaults(model, settings_of(chosen))
    except SettingsError as error:
        assert {*re.findall(r"DEFAULT_\w+", str(error))} == misfits(model, chosen)
        return
    assert not misfits(model, chosen)
    plain, request = ask(model, seed=1), ask(endpoint, seed=1)
    size = chosen.get("default_size", (plain.width, plain.height))
    assert (request.width, request.height) == size
    assert request.num_inference_steps == chosen.get("default_steps", plain.num_inference_steps)
    assert request.guidance_scale == chosen.get("default_guidance_scale", plain.guidance_scale)
    assert request.negative_prompt == chosen.get("default_negative_prompt")
    assert request.warnings == ()


ENDPOINT = apply_defaults(
    model_of("sd1"),
    settings_of(
        {
            "default_steps": 60,
            "default_guidance_scale": 0.0,
            "default_negative_prompt": "blurry",
            "default_size": (512, 768),
        }
    ),
)


def test_what_a_job_names_counts() -> None:
    request = ask(ENDPOINT, steps=7, guidance_scale=3, negative_prompt="dull", width=640, height=320)
    assert (request.num_inference_steps, request.guidance_scale, request.negative_prompt) == (7, 3, "dull")
    assert (request.width, request.height) == (640, 320)


def test_an_empty_negative_prompt_is_one_and_null_is_none() -> None:
    assert ask(ENDPOINT, negative_prompt="").negative_prompt == ""
    assert ask(ENDPOINT, negative_prompt=None).negative_prompt == "blurry"


def test_a_picture_keeps_its_own_size() -> None:
    request = ask(ENDPOINT, image=picture(256, 320))
    assert (request.width, request.height) == (256, 320)


def test_a_scheduler_that_takes_fewer_steps_gets_as_many_as_it_takes() -> None:
    assert ask(ENDPOINT, scheduler="LCM").num_inference_steps == 50


def test_the_log_says_each_default_and_its_source(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker")
    chosen = {"default_steps": 30, "default_size": (512, 768), "default_negative_prompt": "a canary"}
    apply_defaults(model_of("sd1"), settings_of(chosen))
    told = "scheduler LMS (the family's), 30 steps (DEFAULT_STEPS), guidance 7.5, 512x768 (DEFAULT_SIZE), "
    assert f"{told}a negative prompt of 8 letters (DEFAULT_NEGATIVE_PROMPT)" in caplog.text
    assert "canary" not in caplog.text


def test_the_log_says_the_steps_that_jobs_get(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker")
    model = apply_defaults(model_of("sd1", max_steps=30), settings_of({}))
    assert f" {ask(model).num_inference_steps} steps," in caplog.text
