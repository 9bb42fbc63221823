"""The answer to `{"capabilities": true}`: all that a client needs to make its form of, and true of requests."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.helpers.asking import CONTROL, EDIT_ONLY, EDITOR, SD1, SDXL, ask, endpoint_of, model_of, picture, refusal
from worker.api.capabilities_answer import asks_for_capabilities, tell_capabilities
from worker.models.capabilities import Capabilities
from worker.models.control_kinds import ControlKind
from worker.version import VERSION

BUCKET = {
    "bucket_endpoint_url": "https://pictures.s3.eu-west-1.amazonaws.com",
    "bucket_access_key_id": SecretStr("access-key-id"),
    "bucket_secret_access_key": SecretStr("secret-access-key"),
}
UNION = ControlKind(modes=3, names={"canny": 0, "depth": 1})
FULL = model_of(
    "sd1",
    loras=("neon", "people/anna"),
    controlnets=("union", "inpaint"),
    control_kinds={"union": UNION, "inpaint": ControlKind(needs_mask=True)},
    ip_adapter=True,
)


def tell(model: Capabilities, **settings: Any) -> dict[str, Any]:
    """What a caller reads of this model."""
    written = tell_capabilities({"input": {"capabilities": True}}, endpoint_of(model, **settings))
    told: dict[str, Any] = json.loads(json.dumps(written))["capabilities"]
    return told


def fields_of(model: Capabilities, **settings: Any) -> dict[str, dict[str, Any]]:
    return {field["name"]: field for field in tell(model, **settings)["fields"]}


@pytest.mark.parametrize("given", [{"capabilities": True}, {"capabilities": "true"}, {"capabilities": "True"}])
def test_it_is_asked_for_alone(given: object) -> None:
    assert asks_for_capabilities(given)


@pytest.mark.parametrize("given", [None, [], "capabilities", {}, {"capabilities": False}, {"capabilities": 1}])
def test_nothing_else_asks_for_it(given: object) -> None:
    assert not asks_for_capabilities(given)


def test_a_prompt_is_needed_and_nothing_else_is() -> None:
    assert [name for name, field in fields_of(SD1).items() if field["required"]] == ["prompt"]


def test_beside_a_prompt_it_is_refused_and_nothing_is_drawn() -> None:
    assert not asks_for_capabilities({"capabilities": True, "prompt": "a star"})
    assert refusal(capabilities=True).startswith("capabilities: got True; is asked alone")
    ask(capabilities=False)


@pytest.mark.parametrize("model", [SD1, SDXL, FULL, EDITOR, EDIT_ONLY, CONTROL], ids=lambda model: model.family.name)
def test_bounds_are_those_that_requests_are_held_to(model: Capabilities) -> None:
    start = {"image": picture(64, 64)} if model is EDIT_ONLY else {}
    start |= {"controlnet": {"image": picture(64, 64)}} if model is CONTROL else {}
    fields = fields_of(model)
    for name in ("num_inference_steps", "guidance_scale", "num_images", "quality", "clip_skip"):
        if name not in fields:
            continue
        low, high = fields[name]["minimum"], fields[name]["maximum"]
        for allowed in (low, high):
            ask(model, **start, **{name: allowed})
        for wrong in (low - 1, high + 1):
            assert f"{name}: got {wrong}" in refusal(model, **start, **{name: wrong})


def test_every_scheduler_is_taken_with_its_own_bounds() -> None:
    told = tell(SD1)
    assert told["scheduler"] in fields_of(SD1)["scheduler"]["choices"]
    for row in told["schedulers"]:
        for steps in (row["min_steps"], row["max_steps"]):
            ask(SD1, scheduler=row["name"], num_inference_steps=steps)
        wrong = row["max_steps"] + 1
        assert "num_inference_steps" in refusal(SD1, scheduler=row["name"], num_inference_steps=wrong)


def test_defaults_are_what_a_job_that_says_nothing_gets() -> None:
    fields, request = fields_of(SDXL), ask(SDXL)
    assert fields["num_inference_steps"]["default"] == request.num_inference_steps
    assert fields["guidance_scale"]["default"] == request.guidance_scale
    assert (fields["width"]["default"], fields["height"]["default"]) == (request.width, request.height)
    assert fields["scheduler"]["default"] == request.scheduler.name


@pytest.mark.parametrize("name", ["loras", "lora_scale", "controlnet", "ip_adapter", "refiner", "images", "nsfw"])
def test_what_the_model_has_not_is_no_field(name: str) -> None:
    assert name not in fields_of(SD1)


def test_what_the_owner_offers_is_named() -> None:
    told = tell(FULL)
    assert told["loras"] == ["neon", "people/anna"]
    assert [one["name"] for one in told["controlnets"]] == ["union", "inpaint"]
    assert told["controlnets"][0]["modes"] == {"canny": 0, "depth": 1} and told["controlnets"][1]["needs_mask"]
    fields = fields_of(FULL)
    assert {part["name"] for part in fields["controlnet"]["parts"]} >= {"name", "image", "mode", "scale"}
    assert {"loras", "lora_scale", "ip_adapter"} <= fields.keys()


def test_tasks_say_what_asks_for_them_and_what_they_refuse() -> None:
    tasks = {task["name"]: task for task in tell(SD1)["tasks"]}
    assert tasks["inpainting"]["needs"] == ["image", "mask"] and tasks["inpainting"]["strength"] == 1.0
    assert "guidance_rescale" in tasks["image to image"]["refuses"]
    assert "guidance_rescale" in refusal(SD1, image=picture(64, 64), guidance_rescale=0.5)
    assert "guidance_rescale" not in tasks["text to image"]["refuses"]
    assert [task["name"] for task in tell(EDIT_ONLY)["tasks"]] == ["editing"]
    assert tell(EDIT_ONLY)["limits"]["references"] == 3


@pytest.mark.parametrize("model", [SD1, SDXL, FULL, EDITOR, EDIT_ONLY, CONTROL], ids=lambda model: model.family.name)
def test_what_a_task_needs_is_a_field(model: Capabilities) -> None:
    told = tell(model)
    assert told["tasks"]
    assert {need for task in told["tasks"] for need in task["needs"]} <= {field["name"] for field in told["fields"]}


def test_without_a_controlnet_no_task_follows_one() -> None:
    assert not [task["name"] for task in tell(SD1)["tasks"] if "ControlNet" in task["name"]]
    assert [task["name"] for task in tell(FULL)["tasks"] if "ControlNet" in task["name"]]


def test_a_bucket_is_told_by_the_way_and_never_by_its_keys_or_place() -> None:
    assert tell(SD1)["delivery"] == ["base64"]
    told = tell(SD1, **BUCKET, hf_token=SecretStr("hf_secret"))
    assert told["delivery"] == ["base64", "s3"]
    assert fields_of(SD1, **BUCKET)["delivery"]["choices"] == ["auto", "base64", "s3"]
    written = json.dumps(told)
    for secret in ("access-key-id", "secret-access-key", "hf_secret", "amazonaws"):
        assert secret not in written


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert tell(SD1)["version"] == VERSION == project["version"]
