"""Whatever JSON comes as a job's input, the answer is a request within the model's limits or one clear refusal."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.asking import SD1, ask, model_of, picture, sent
from tests.helpers.fuzzing import examples
from worker.api.elsewhere import ElsewhereFields
from worker.api.parse import parse
from worker.api.response import write_failure
from worker.api.schema import spellings
from worker.errors import InvalidInputError
from worker.models.capabilities import Capabilities
from worker.models.families import FAMILIES
from worker.output.encode import encode
from worker.output.metadata import format_metadata
from worker.output.options import Bucket
from worker.plan import make_plan
from worker.request import Request

_ABLE: dict[str, Any] = {"loras": ("style", "people/anna"), "controlnets": ("canny",), "ip_adapter": True}
MODELS = [
    *(model_of(family.name) for family in FAMILIES),
    model_of("sd1", max_pixels=512 * 512, max_steps=20, max_images=2, **_ABLE),
    model_of("sdxl", refiner=True, **{**_ABLE, "controlnets": ("canny", "depth")}),
    model_of("sd1", tasks={}, latent_upscaling=False, clip_layers=0, previews=False),
]
# Python's json reads lone surrogates, NaN and Infinity; so may a job.
TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["", "\ud800", "a \udfff", "\0", "\U0001f600"])
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 64, 512, 8192, 2**32, 10**50, 1e999]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
# Of our own fields as many as of other services', which are more.
KNOWN = st.sampled_from(sorted(set(spellings()) - set(ElsewhereFields.model_fields))) | st.sampled_from(
    sorted(spellings())
)
# Values that are often right, so that a good part of the requests is accepted.
LIKELY = st.one_of(
    st.integers(1, 16),
    st.integers(64, 2048),
    st.floats(0, 1),
    st.sampled_from(["png", "jpeg", "auto", "base64", "LMS", "Euler", "Flow Euler", "DDIM", "IPNDM", "blurry"]),
    st.lists(st.integers(-1, 2**64), max_size=4),
)
LIKELY_FIELDS = KNOWN


def _replayable() -> str:
    request = ask(seed=5, hires={"scale": 1.5}, negative_prompt="blurry")
    file = encode(Image.new("RGB", (8, 8)), format_metadata(request.pictures[0], make_plan(request), SD1), "png", 90)
    return "data:image/png;base64," + base64.b64encode(file.data).decode()


_ALPHA = Image.linear_gradient("L").resize((40, 70))
_PICTURES = [
    *(picture(*size) for size in ((64, 64), (90, 70), (1, 1), (400, 1))),
    picture(64, 64, "white"),
    sent(Image.merge("RGBA", [_ALPHA] * 4)),
]
_NO_PICTURES = ["volume:../../etc/passwd", "ftp://a/b.png", "data:image/png;base64,AAAA", "AAAA", ""]
PICTURES = st.sampled_from(_PICTURES * 3 + [_replayable()] + _NO_PICTURES)  # more often right than wrong
SHARES = st.floats(0, 1) | st.sampled_from([0, 1, 0.5])


def _object(needed: dict[str, Any] | None = None, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with what it needs and some of the other parts; now and then with one that is anything."""
    right = st.fixed_dictionaries(needed or {}, optional=parts)
    wrong = st.fixed_dictionaries({}, optional=dict.fromkeys(parts, JSON))
    return st.one_of(right, right, right, wrong)


def _names(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from([*names * 4, "../style", "", "\0", "style/../style", "\ud800"])


LORA_NAMES = _names("style", "style.safetensors", "people/anna")
LORA = _object({"name": LORA_NAMES}, scale=st.floats(-11, 11))
CONTROL = _object({"image": PICTURES}, name=_names("canny"), scale=st.floats(0, 10), start=SHARES, end=SHARES)
SHORT_STEPS = st.integers(0, 60)
NESTED: dict[str, st.SearchStrategy[Any]] = {
    "image": PICTURES,
    "mask": PICTURES,
    "replay": st.just(_replayable()) | PICTURES,
    "strength": SHARES,
    "width": st.integers(60, 300),
    "height": st.integers(60, 300),
    "loras": LORA_NAMES | LORA | st.lists(LORA_NAMES | LORA, max_size=3),
    "lora_scale": st.floats(-11, 11),
    "controlnet": CONTROL | st.lists(CONTROL, max_size=3),
    "ip_adapter": _object({"image": PICTURES}, scale=st.floats(0, 11)),
    "clip_skip": st.integers(0, 13),
    "guidance_rescale": SHARES,
    "image_guidance_scale": st.floats(0, 51),
    "hires": _object(
        scale=st.floats(0.9, 4), strength=SHARES, steps=SHORT_STEPS, upscaler=st.sampled_from(["lanczos", "latent"])
    ),
    "refiner": _object(high_noise_frac=SHARES, strength=SHARES, steps=SHORT_STEPS),
    "high_noise_frac": SHARES,
    "refiner_inference_steps": SHORT_STEPS,
    "preview": st.booleans(),
    "size": st.tuples(st.integers(60, 400), st.sampled_from("x*X"), st.integers(60, 400)).map(
        lambda size: "{}{}{}".format(*size)
    ),
    "aspect_ratio": st.tuples(st.integers(1, 21), st.integers(1, 21)).map(lambda ratio: "{}:{}".format(*ratio)),
    "megapixels": st.sampled_from(["0.05", "0.25", 1, "1k", "2k", "match_input"]),
    "n_iter": st.integers(0, 3),
    "enable_hr": st.booleans(),
    "hr_scale": st.floats(0.9, 4),
    "hr_upscaler": st.sampled_from(["Latent", "Lanczos", "None", "ESRGAN_4x"]),
    "hr_second_pass_steps": SHORT_STEPS,
    "refine": st.sampled_from(["no_refiner", "expert_ensemble_refiner", "base_image_refiner"]),
    "mask_blur": st.integers(-1, 65),
    "inpainting_mask_invert": st.integers(0, 1),
    "override_settings": _object(CLIP_stop_at_last_layers=st.integers(0, 13), sd_model_checkpoint=st.just("sd1")),
    "enable_safety_checker": st.booleans(),
}


def _request(given_input: object, model: Capabilities, s3: object = None) -> Request | None:
    """The request, or None after checking that the refusal is one that can be sent."""
    try:
        request, output = parse({"id": "x", "input": given_input, "s3Config": s3}, model)
    except InvalidInputError as error:
        answer = write_failure(error)
        assert answer["code"] == "INVALID_INPUT" and answer["error"]
        json.dumps(answer, ensure_ascii=False).encode()
        return None
    assert 1 <= output.quality <= 100
    assert output.delivery != "s3" or isinstance(output.bucket, Bucket)
    return request


def _within_limits(request: Request, model: Capabilities) -> None:
    step = model.family.size_step
    assert 0 < request.width * request.height <= model.max_pixels
    assert request.width % step == 0 and request.height % step == 0
    assert request.scheduler.min_steps <= request.num_inference_steps <= model.max_steps
    assert 1 <= len(request.pictures) <= model.max_images
    assert all(0 <= picture.seed < 2**32 and isinstance(picture.seed, int) for picture in request.pictures)
    assert all(isinstance(picture.prompt, str) for picture in request.pictures)
    assert 0 <= request.guidance_scale <= 50
    json.dumps(request.warnings, ensure_ascii=False).encode()
    _passes_within_limits(request, model)


def _passes_within_limits(request: Request, model: Capabilities) -> None:
    """What the request brings fits the size it is drawn at, and every pass has a step within the limits."""
    brought = [control.image for control in request.controls]
    if request.init_image:
        brought += [request.init_image.image, *([request.init_image.mask] if request.init_image.mask else [])]
        assert request.init_image.strength * request.num_inference_steps >= 1
    assert all(image.size == (request.width, request.height) for image in brought)
    assert all(control.name in model.controlnets and control.start < control.end for control in request.controls)
    assert all(lora.name in model.loras for lora in request.loras)
    assert request.task in model.tasks or not (brought or request.image_prompt)
    if hires := request.hires:
        assert hires.width * hires.height <= model.max_pixels and hires.width >= request.width
        assert hires.strength * hires.steps >= 1 and hires.steps <= model.max_steps
    if refinement := request.refinement:
        assert model.refiner and refinement.steps <= model.max_steps


@examples(300)
@given(JSON, st.sampled_from(MODELS))
def test_any_json_as_the_input(given_input: object, model: Capabilities) -> None:
    if request := _request(given_input, model):
        _within_limits(request, model)


@examples(200)
@given(st.dictionaries(KNOWN | TEXT, JSON, max_size=6), TEXT | st.lists(TEXT, max_size=3), st.sampled_from(MODELS))
def test_any_json_in_known_fields(fields: dict[str, Any], prompt: object, model: Capabilities) -> None:
    if request := _request({**fields, "prompt": prompt}, model):
        _within_limits(request, model)


@examples(500)
@given(st.dictionaries(LIKELY_FIELDS, LIKELY, max_size=3), st.sampled_from(MODELS))
def test_likely_requests(fields: dict[str, Any], model: Capabilities) -> None:
    if request := _request({**fields, "prompt": "a red square"}, model):
        _within_limits(request, model)


FEW = st.lists(st.sampled_from(sorted(NESTED)), min_size=1, max_size=3).map(
    lambda names: {*names, *(["image"] if "mask" in names else [])}
)
ABLE = st.sampled_from([*MODELS[-3:-1] * 4, *MODELS])


@examples(400)
@given(FEW.flatmap(lambda names: st.fixed_dictionaries({name: NESTED[name] for name in sorted(names)})), ABLE)
def test_likely_requests_with_pictures_and_objects(fields: dict[str, Any], model: Capabilities) -> None:
    if request := _request({**fields, "prompt": "a red square"}, model):
        _within_limits(request, model)


@examples(200)
@given(JSON | st.dictionaries(st.sampled_from(["accessId", "accessSecret", "bucketName", "endpointUrl"]), SCALARS))
def test_any_json_as_the_bucket(s3: object) -> None:
    if request := _request({"prompt": "a red square"}, SD1, s3):
        _within_limits(request, SD1)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [1] * 20_000},
        {"seed": ["a"] * 20_000},
        {"prompt": [[["a"] * 5_000] * 3]},
        {str(i): i for i in range(20_000)},
        {"loras": [{str(i): i for i in range(20_000)}]},
    ],
    ids=["a list", "seeds", "lists in lists", "keys", "keys below"],
)
def test_more_than_a_request_can_mean_is_refused_unread(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse({"input": {"prompt": "a red square", **fields}}, SD1)[0]
    assert str(refused.value) == "input: holds too much; at most 10,000 values"
