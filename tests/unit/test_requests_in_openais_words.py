"""Requests in OpenAI's words mean what the same ones mean in our own, with every bound, and are answered in its shapes.

`openai_route` and `openai_input` are what RunPod's proxy makes of `/openai/v1/...` (worker-vllm, src/handler.py).
"""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.asking import EDITOR, SD1, SDXL, ask_all, endpoint_of, model_of, picture, sent
from tests.helpers.fuzzing import examples
from tests.helpers.published_requests import OPENAI
from worker.api.contract import choose_contract
from worker.api.openai import EDITS, GENERATIONS, MODELS
from worker.api.response import Answer, Timings
from worker.errors import InvalidInputError, OutOfMemoryError, ResultTooLargeError, WorkerBrokenError
from worker.images.load import PictureRules
from worker.models.capabilities import Capabilities
from worker.output.options import OutputOptions, OutputRules
from worker.request import Request

PROMPT = "a red square"


def job_of(body: object, route: object = GENERATIONS, **beside: Any) -> dict[str, Any]:
    return {"id": "test", "input": {"openai_route": route, "openai_input": body, **beside}}


def parse(job: dict[str, Any], model: Capabilities = SD1) -> tuple[Request, OutputOptions]:
    return choose_contract(job).parse(job, model, PictureRules(), OutputRules())


def ask(loaded: Capabilities = SD1, route: str = GENERATIONS, **body: Any) -> tuple[Request, OutputOptions]:
    return parse(job_of({"prompt": PROMPT, **body}, route), loaded)


def error(job: dict[str, Any], model: Capabilities = SD1) -> dict[str, Any]:
    """OpenAI's object of the error that this job is answered, as the SDK sends it: `error` is taken out as a text."""
    contract = choose_contract(job)
    with pytest.raises(InvalidInputError) as refused:
        assert contract.tell(job, endpoint_of(model)) is None
        contract.parse(job, model, PictureRules(), OutputRules())
    written = contract.write_failure(refused.value)
    body = json.loads(written.pop("error"))
    assert body == {"error": written} and list(written) == ["message", "type", "param", "code"]
    return written


def same(one: Request, other: Request) -> bool:
    return replace(one, warnings=()) == replace(other, warnings=())


# What OpenAI's fields mean


@pytest.mark.parametrize("name", OPENAI)
def test_openais_documented_requests_mean_the_same_as_in_our_own_words(name: str) -> None:
    fields = {"seed": 7, **OPENAI[name]}
    request, output = ask(SDXL, **fields)
    own, own_output = ask_all(SDXL, **fields)
    assert same(request, own)
    assert (output.format, output.quality) == (own_output.format, own_output.quality)
    assert output.delivery == ("auto" if fields.get("response_format") == "url" else "base64")


def test_own_fields_stand_beside_openais_or_in_extra_body() -> None:
    own = {"num_inference_steps": 9, "guidance_scale": 3.5, "scheduler": "Euler"}
    beside, _ = ask(seed=5, n=2, size="128x64", **own)
    inside, _ = ask(seed=4, n=2, size="128x64", extra_body={"seed": 5, **own})
    assert same(beside, inside)
    assert (beside.width, beside.height, beside.num_inference_steps) == (128, 64, 9)
    assert [one.seed for one in beside.pictures] == [5, 6]


@pytest.mark.parametrize("effort", ["low", "medium", "high", "hd", "xhigh"])
def test_an_effort_has_no_effect_and_the_caller_is_told(effort: str) -> None:
    request, output = ask(quality=effort, output_format="jpeg", output_compression=80)
    assert output.quality == 80 and output.format == "jpeg"
    assert f"quality: {effort} has no effect; num_inference_steps says how long is drawn" in request.warnings


@pytest.mark.parametrize("model", ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1.5", "chatgpt-image-latest"])
def test_the_models_that_clients_have_a_list_of_are_the_endpoints(model: str) -> None:
    request, _ = ask(model=model)
    assert f"model: {model} is not here; this endpoint draws with {SD1.name}" in request.warnings
    assert ask(model=SD1.name)[0].warnings == ()


@pytest.mark.parametrize("neutral", [{"stream": False}, {"stream": "false"}, {"partial_images": 0}, {"user": "u-1"},
    {"safety_identifier": "s"}, {"style": "vivid"}, {"moderation": "low"}, {"background": "opaque"}, {"size": "auto"},
    {"model": None, "n": None, "size": None, "response_format": None, "stream": None}])  # fmt: skip
def test_what_asks_for_nothing_else_is_taken(neutral: dict[str, Any]) -> None:
    assert same(ask(seed=1, **neutral)[0], ask(seed=1)[0])


def test_what_stands_beside_openai_input_is_told_to_have_no_effect() -> None:
    request, _ = parse(job_of({"prompt": PROMPT}, seed=3))
    assert request.warnings == ("seed: has no effect beside openai_input",)


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "x" * 10_000])
def test_whatever_stands_beside_openai_input_is_told_in_few_words_that_can_be_sent(name: str) -> None:
    request, _ = parse(job_of({"prompt": PROMPT}, **{f"{name}{i}": 1 for i in range(1_000)}))
    assert request.warnings
    assert all(warning.isprintable() for warning in request.warnings)
    assert len("".join(request.warnings).encode()) < 5_000


# Pictures to edit


HALF = Image.new("RGB", (128, 128), "white")
HOLE = Image.new("RGBA", (128, 128), (9, 9, 9, 255))
HOLE.paste((0, 0, 0, 0), (0, 0, 64, 128))


@pytest.mark.parametrize(
    "form", [{"image": sent(HALF)}, {"image": [sent(HALF)]}, {"images": [{"image_url": sent(HALF)}]}]
)
def test_a_picture_is_edited_in_each_form_of_it(form: dict[str, Any]) -> None:
    request, _ = ask(route=EDITS, seed=2, strength=0.5, **form)
    own, _ = ask_all(SD1, seed=2, strength=0.5, image=sent(HALF))
    assert same(request, own) and request.init_image is not None


def test_several_pictures_are_what_an_editor_is_told_of() -> None:
    request, _ = ask(EDITOR, EDITS, image=[picture(64, 64), picture(64, 64, "blue")])
    assert len(request.references) == 2


@pytest.mark.parametrize("opaque", ["black", "white", "red"])
@pytest.mark.parametrize("reference", [lambda uri: uri, lambda uri: {"image_url": uri}], ids=["text", "object"])
def test_what_is_transparent_in_a_mask_is_drawn_anew_whatever_else_it_shows(opaque: str, reference: Any) -> None:
    """OpenAI: "fully transparent areas (e.g. where alpha is zero) indicate where image should be edited"."""
    mask = Image.new("RGBA", (128, 128), opaque)
    mask.paste((0, 0, 0, 0), (0, 0, 64, 128))
    request, _ = ask(route=EDITS, image=sent(HALF), mask=reference(sent(mask)))
    assert request.init_image is not None and request.init_image.mask is not None
    assert [request.init_image.mask.getpixel(at) for at in ((10, 64), (120, 64))] == [255, 0]


# What is refused, by OpenAI's names


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 10**30}, "n"),
        ({"n": 0}, "n"),
        ({"size": "8192x8192"}, "size"),
        ({"size": "wide"}, "size"),
        ({"response_format": "file"}, "response_format"),
        ({"response_format": ["url"]}, "response_format"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "svg"}, "output_format"),
        ({"output_compression": 101}, "output_compression"),
        ({"quality": "best"}, "quality"),
        ({"stream": True}, "stream"),
        ({"partial_images": 2}, "partial_images"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {"deep": [[[1]]]}}, "prompt"),
        ({"frame_count": 3}, "frame_count"),
        ({"seed": [1, 2]}, "seed"),
        ({"extra_body": [1]}, "extra_body"),
        ({"openai_route": GENERATIONS}, "openai_route"),
        ({"openai_input": {"prompt": "x"}}, "openai_input"),
        ({"image": [picture(64, 64)] * 3}, "image"),
        ({"image": ["x"] * 10_000}, "image"),
        ({"image": [[["x"]]]}, "image"),
        ({"image": {"file_id": "file-1"}}, "image"),
        ({"images": [{"image_url": {"url": "x"}}]}, "images"),
        ({"image": sent(HALF), "mask": {"file_id": "file-1"}}, "mask"),
        ({"image": "/etc/passwd"}, "image"),
    ],
)
def test_a_wrong_field_is_named_as_openai_calls_it(body: dict[str, Any], param: str) -> None:
    told = error(job_of({"prompt": PROMPT, **body}))
    assert told["type"] == "invalid_request_error"
    assert told["message"].startswith((f"{param}: ", f"{param}."))
    if param != "openai_route":
        assert (told["param"], told["code"]) == (param, "INVALID_INPUT")


def test_an_edit_without_a_picture_is_refused() -> None:
    assert error(job_of({"prompt": PROMPT}, EDITS))["message"] == "image: required, but missing"


@pytest.mark.parametrize("nothing", [None, [], [None], [None, None], [[]], [[None]], [{}]])
@pytest.mark.parametrize("name", ["image", "images"])
def test_an_edit_of_nothing_is_not_drawn_from_the_prompt_alone(name: str, nothing: object) -> None:
    told = error(job_of({"prompt": PROMPT, name: nothing}, EDITS))
    assert told["type"] == "invalid_request_error" and told["param"] in ("image", name)


@pytest.mark.parametrize("body", [None, [], "a star", 3, [{"prompt": PROMPT}]])
def test_an_openai_input_that_is_no_object_is_named(body: object) -> None:
    told = error(job_of(body))
    assert told["param"] == "openai_input" and "should be an object of fields" in told["message"]


@pytest.mark.parametrize(
    "route",
    [None, "", 5, ["/v1/models"], {"a": 1}, "/v1/chat/completions", "/v1/images/variations", "images/generations",
     "/v1/images/../images/generations", "/v1/images/generations/", "//v1/models", "/v1/images/generations?x=1",
     "/v2/models", "\ud800"],
)  # fmt: skip
def test_an_unknown_route_is_named_and_those_that_there_are(route: object) -> None:
    told = error(job_of({"prompt": PROMPT}, route))
    assert told["message"].startswith("openai_route: got ") and GENERATIONS in told["message"]
    assert (told["param"], told["code"]) == (None, "unknown_url")


@pytest.mark.parametrize("name", ["other/model", "..", "../../etc/passwd", "%2e%2e", "x" * 100_000])
def test_another_model_is_not_found(name: str) -> None:
    for told in (error(job_of(None, f"{MODELS}/{name}")), error(job_of({"prompt": PROMPT, "model": name[:100]}))):
        assert (told["type"], told["param"], told["code"]) == ("invalid_request_error", "model", "model_not_found")
        assert SD1.name in told["message"] and len(told["message"]) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["prompt", "n", "size", "quality", "image", "images", "mask", "model", "response_format", "extra_body", "stream",
     "output_format", "output_compression", "user", "seed", "openai_input", "background"]
)  # fmt: skip


@pytest.mark.fuzz
@examples(60)
@given(st.dictionaries(NAMES, JSON, max_size=4), st.sampled_from([GENERATIONS, EDITS]))
def test_any_json_is_drawn_or_refused_in_openais_shape(body: dict[str, Any], route: str) -> None:
    job = job_of(body, route)
    try:
        parse(job)
    except InvalidInputError as refused:
        written = choose_contract(job).write_failure(refused)
        assert json.loads(written["error"])["error"]["message"] == str(refused)


def test_the_published_schema_admits_it() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "request.schema.json").read_text())
    for job in (job_of({"prompt": PROMPT}), job_of(None, MODELS), {"input": {"prompt": PROMPT}}):
        jsonschema.validate(job["input"], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"seed": 1}, schema)


# What is answered


DATA_URI = "data:image/webp;base64," + base64.b64encode(b"picture").decode()
ANSWER = Answer(
    images=[DATA_URI, "https://bucket.example.com/2.png"], image_url=DATA_URI, seed=7, seeds=[7, 8],
    width=64, height=32, model="shapes", scheduler="LMS", steps=4, task="text to image", references=None, layers=None,
    true_cfg_scale=None, max_sequence_length=None, nsfw=[False, False],
    timings=Timings(0, 0, 0, 0, 0, 0), acceleration=None, cost=None, warnings=["told"],
)  # fmt: skip


def test_pictures_are_answered_as_openai_answers_them() -> None:
    contract = choose_contract(job_of({}))
    written = contract.write_answer(ANSWER, OutputOptions(delivery="base64"))
    assert written["data"] == [{"b64_json": base64.b64encode(b"picture").decode()}, {"url": ANSWER.images[1]}]
    assert written["created"] > 1_600_000_000
    assert {name: written[name] for name in ("background", "output_format", "size", "model", "seeds", "warnings")} == {
        "background": "opaque",
        "output_format": "webp",
        "size": "64x32",
        "model": "shapes",
        "seeds": [7, 8],
        "warnings": ["told"],
    }
    assert not {"usage", "quality", "images", "image_url", "error"} & set(written)
    assert contract.write_answer(ANSWER, OutputOptions())["data"] == [{"url": one} for one in ANSWER.images]


def test_its_size_is_that_of_what_the_sdk_posts() -> None:
    contract, answer = choose_contract(job_of({})), replace(ANSWER, model="模型 é")
    for output in (OutputOptions(delivery="base64"), OutputOptions()):
        posted = json.dumps({"output": contract.write_answer(answer, output)}, ensure_ascii=False).encode()
        assert contract.count_bytes(answer, output) == len(posted)


@pytest.mark.parametrize(
    "route", [MODELS, f"{MODELS}/black-forest-labs%2FFLUX.1-dev", f"{MODELS}/black-forest-labs/FLUX.1-dev"]
)
def test_the_endpoints_model_is_told(route: str) -> None:
    flux = model_of("flux-dev", name="black-forest-labs/FLUX.1-dev")
    for body in (None, {}):
        told = choose_contract(job_of(body, route)).tell(job_of(body, route), endpoint_of(flux))
        assert told is not None
        model = told["data"][0] if route == MODELS else told
        assert model == {"id": flux.name, "object": "model", "created": 0, "owned_by": "flux-dev"}
        assert told["object"] == ("list" if route == MODELS else "model")


@pytest.mark.parametrize(
    ("failure", "type", "code"),
    [
        (ResultTooLargeError("too large"), "invalid_request_error", "RESULT_TOO_LARGE"),
        (OutOfMemoryError("no memory"), "server_error", "OUT_OF_MEMORY"),
        (WorkerBrokenError("broken"), "server_error", "WORKER_BROKEN"),
    ],
)
def test_a_failure_of_another_kind_is_told_as_openai_tells_it(failure: Any, type: str, code: str) -> None:
    written = choose_contract(job_of({})).write_failure(failure)
    assert (written["message"], written["type"], written["param"], written["code"]) == (str(failure), type, None, code)
    assert written.get("refresh_worker", False) is (code == "WORKER_BROKEN")


@pytest.mark.parametrize(
    "given", [{"prompt": "x"}, {"openai_route": None, "openai_input": None, "prompt": "x"}, None, []]
)
def test_a_job_in_our_own_words_stays_one(given: object) -> None:
    assert choose_contract({"id": "1", "input": given}) is choose_contract({"id": "1", "input": {}})
