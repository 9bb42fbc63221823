"""Whatever JSON comes as a job's input, the answer is a request within the model's limits or one clear refusal."""

import json
from typing import Any

from asking import SD1, model_of
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import InvalidInput
from worker.families import FAMILIES, Model
from worker.fields import spellings
from worker.parse import parse
from worker.request import Request
from worker.settings import Bucket

MODELS = [model_of(family.name) for family in FAMILIES] + [
    model_of("sd1", max_pixels=512 * 512, max_steps=20, max_images=2)
]
# Python's json reads lone surrogates, NaN and Infinity; so may a job.
TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["", "\ud800", "a \udfff", "\0", "\U0001f600"])
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 64, 512, 8192, 2**32, 10**50, 1e999]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
KNOWN = st.sampled_from(sorted(spellings()))
# Values that are often right, so that a good part of the requests is accepted.
LIKELY = st.one_of(
    st.integers(1, 16),
    st.integers(64, 2048),
    st.floats(0, 1),
    st.sampled_from(["png", "jpeg", "auto", "base64", "LMS", "Euler", "Flow Euler", "DDIM", "IPNDM", "blurry"]),
    st.lists(st.integers(-1, 2**64), max_size=4),
)
LIKELY_FIELDS = st.sampled_from(
    [name for name in sorted(spellings()) if name not in ("image", "mask", "loras", "controlnet", "hires", "replay")]
)


def _request(given_input: object, model: Model, s3: object = None) -> Request | None:
    """The request, or None after checking that the refusal is one that can be sent."""
    try:
        return parse({"id": "x", "input": given_input, "s3Config": s3}, model)
    except InvalidInput as error:
        answer = error.answer()
        assert answer["code"] == "INVALID_INPUT" and answer["error"]
        json.dumps(answer, ensure_ascii=False).encode()
        return None


def _within_limits(request: Request, model: Model) -> None:
    step = model.family.size_step
    assert 0 < request.width * request.height <= model.max_pixels
    assert request.width % step == 0 and request.height % step == 0
    assert request.scheduler.min_steps <= request.num_inference_steps <= model.max_steps
    assert 1 <= len(request.pictures) <= model.max_images
    assert all(0 <= picture.seed < 2**32 and isinstance(picture.seed, int) for picture in request.pictures)
    assert all(isinstance(picture.prompt, str) for picture in request.pictures)
    assert 0 <= request.guidance_scale <= 50
    assert 1 <= request.quality <= 100
    assert request.delivery != "s3" or isinstance(request.bucket, Bucket)
    json.dumps(request.warnings, ensure_ascii=False).encode()


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from(MODELS))
def test_any_json_as_the_input(given_input: object, model: Model) -> None:
    if request := _request(given_input, model):
        _within_limits(request, model)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KNOWN | TEXT, JSON, max_size=6), TEXT | st.lists(TEXT, max_size=3), st.sampled_from(MODELS))
def test_any_json_in_known_fields(fields: dict[str, Any], prompt: object, model: Model) -> None:
    if request := _request({**fields, "prompt": prompt}, model):
        _within_limits(request, model)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(LIKELY_FIELDS, LIKELY, max_size=3), st.sampled_from(MODELS))
def test_likely_requests(fields: dict[str, Any], model: Model) -> None:
    if request := _request({**fields, "prompt": "a red square"}, model):
        _within_limits(request, model)


@settings(max_examples=200, deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(["accessId", "accessSecret", "bucketName", "endpointUrl"]), SCALARS))
def test_any_json_as_the_bucket(s3: object) -> None:
    if request := _request({"prompt": "a red square"}, SD1, s3):
        _within_limits(request, SD1)
