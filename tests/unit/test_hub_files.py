"""The files that RunPod's Hub reads have its format, name real settings, and test with inputs that the worker takes."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from PIL import Image

from tools.hub import ICON, ICON_REQUEST
from worker.api.parse import parse
from worker.models import schedulers
from worker.models.capabilities import Capabilities
from worker.models.families import FAMILIES
from worker.output.metadata import parse_metadata
from worker.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".runpod"
HUB, TESTS, SCHEMA = (json.loads((FOLDER / f"{name}.json").read_text()) for name in ("hub", "tests", "schema"))
INPUTS: dict[str, dict[str, Any]] = {entry["key"]: entry["input"] for entry in HUB["config"]["env"]}
LEFT_OUT = {
    "max_result_bytes": "it follows RunPod's own limit, which no form of RunPod's can move",
}
EMBEDDED = next(family for family in FAMILIES if family.name == "shapes")


@pytest.mark.parametrize(("kind", "content"), [("hub", HUB), ("tests", TESTS)])
def test_the_file_has_the_hubs_format(kind: str, content: dict[str, Any]) -> None:
    jsonschema.validate(content, {**SCHEMA, "$ref": f"#/$defs/{kind}"})


def test_the_form_offers_every_setting_but_those_that_nobody_should_need() -> None:
    assert len(INPUTS) == len(HUB["config"]["env"]), "a key appears twice"
    assert {key.lower() for key in INPUTS} == {*Settings.model_fields} - {*LEFT_OUT}


def test_bounds_are_the_settings_own() -> None:
    """The form's numbers are whole, so that a bound above 0 is one at 1; what may be a fraction is a text there."""
    for key, field in Settings.model_fields.items():
        least = next((one.ge for one in field.metadata if hasattr(one, "ge")), None)
        if any(hasattr(one, "gt") for one in field.metadata):
            least = 1
        if INPUTS.get(key.upper(), {}).get("type") == "number":
            assert INPUTS[key.upper()].get("min") == least, key


def test_choices_are_the_settings_own() -> None:
    for key, field in Settings.model_fields.items():
        if key.upper() in INPUTS and (choices := get_args(field.annotation)) and type(None) not in choices:
            offered = INPUTS[key.upper()]["options"]
            assert {option["value"] for option in offered} == {*choices}, key


def test_an_untouched_form_starts_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, fields in INPUTS.items():
        monkeypatch.setenv(key, str(fields.get("default", "")))
    untouched = read_settings()
    for key in INPUTS:
        monkeypatch.delenv(key)
    assert untouched == read_settings()


@pytest.mark.parametrize("preset", HUB["config"]["presets"], ids=lambda preset: preset["name"])
def test_presets_set_what_the_form_shows(preset: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert preset["defaults"].keys() <= INPUTS.keys()
    for key, value in preset["defaults"].items():
        monkeypatch.setenv(key, value)
    assert read_settings().model_name == preset["defaults"]["MODEL_NAME"]


@pytest.mark.parametrize("test", TESTS["tests"], ids=lambda test: test["name"])
def test_the_worker_takes_the_hubs_test(test: dict[str, Any]) -> None:
    own = schedulers.describe_own("LMSDiscreteScheduler", EMBEDDED.noise, {})
    names = "steps", "guidance_scale", "max_pixels", "max_steps", "max_images"
    numbers = {name: getattr(EMBEDDED, name) for name in names}
    model = Capabilities("shapes", EMBEDDED, 256, 256, "epsilon", own, own, safety_checker=False, **numbers)
    assert parse({"input": test["input"]}, model)[0].warnings == ()


def test_the_icon_is_in_the_repository_and_drawn_by_the_embedded_model() -> None:
    address = HUB["iconUrl"]
    assert address.startswith("https://raw.githubusercontent.com/") and address.endswith(f"/main/{ICON.as_posix()}")
    made = parse_metadata(Image.open(ROOT / ICON).info["parameters"])
    assert (made.model, made.fields["prompt"], made.fields["seed"]) == ("shapes", *ICON_REQUEST.values())
    assert (ROOT / ICON).stat().st_size < 50_000


def test_only_machines_whose_driver_runs_the_locked_cuda_are_asked_for() -> None:
    locked = re.search(r"^cuda-toolkit==(\d+\.\d+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    for content in (HUB, TESTS):
        assert content["config"]["allowedCudaVersions"][0] == locked[1]
