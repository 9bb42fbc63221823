"""A worker answers a job in OpenAI's words in OpenAI's shapes, whatever becomes of it."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.helpers.asking import sent
from tests.helpers.faults import a_worker
from worker.api.openai import EDITS, GENERATIONS, MODELS
from worker.errors import ModelError
from worker.runtime.worker import Worker

FIELDS = {"prompt": "a star", "size": "64x64", "seed": 3, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def worker(tiny_sd1: str) -> Iterator[Worker]:
    with a_worker(MODEL_NAME=tiny_sd1) as worker:
        yield worker


def ask(worker: Worker, route: str = GENERATIONS, **body: Any) -> dict[str, Any]:
    answer = worker.handle({"id": "test", "input": {"openai_route": route, "openai_input": {**FIELDS, **body}}})
    assert isinstance(answer, dict)
    return answer


def test_it_draws_what_a_job_in_our_own_words_draws(worker: Worker) -> None:
    own = worker.handle({"id": "test", "input": FIELDS})
    assert isinstance(own, dict)
    data_uri = own["images"][0]
    answer = ask(worker)
    assert answer["data"] == [{"b64_json": data_uri.partition(",")[2]}]
    assert (answer["size"], answer["seeds"], answer["model"]) == ("64x64", [3], own["model"])
    assert ask(worker, response_format="url")["data"] == [{"url": data_uri}]


def test_it_edits_what_is_transparent_in_the_mask(worker: Worker) -> None:
    mask = Image.new("RGBA", (64, 64), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    white = sent(Image.new("RGB", (64, 64), "white"))
    answer = ask(worker, EDITS, images=[{"image_url": white}], mask={"image_url": sent(mask)})
    edited = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).convert("RGB")
    assert edited.crop((32, 0, 64, 64)).getextrema() == ((255, 255),) * 3
    assert edited.crop((0, 0, 32, 64)).getextrema() != ((255, 255),) * 3


def test_it_tells_its_model_without_drawing(worker: Worker) -> None:
    listed = worker.handle({"id": "test", "input": {"openai_route": MODELS}})
    assert isinstance(listed, dict)
    assert [one["object"] for one in listed["data"]] == ["model"]


def test_a_wrong_field_and_a_wrong_route_are_told_in_openais_shape(worker: Worker) -> None:
    for answer, param in ((ask(worker, n=99), "n"), (ask(worker, "/v1/chat/completions"), None)):
        told = json.loads(answer.pop("error"))["error"]
        assert told == answer and told["param"] == param and told["type"] == "invalid_request_error"


def test_a_worker_without_a_model_says_so_in_openais_shape(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_loaded", ModelError("there is none"))
    told = ask(worker)
    assert json.loads(told.pop("error")) == {"error": told}
    assert told == {"message": "there is none", "type": "server_error", "param": None, "code": "MODEL_ERROR"}
