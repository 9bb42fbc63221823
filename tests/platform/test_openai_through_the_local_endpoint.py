"""OpenAI's clients through the local endpoint's `/openai/v1`: requests in each form, and errors as they know them.

The worker's engine is left out; that it draws what is asked is told in test_clients_draw.py.
"""

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.helpers.asking import SD1, picture, sent


@pytest.fixture(scope="module")
def platform(open_platform: Any, open_worker: Any) -> Iterator[Any]:
    with open_platform() as platform, open_worker(platform, Path(__file__).with_name("openai_worker.py")):
        yield platform


@pytest.fixture(scope="module")
def client(platform: Any) -> Iterator[OpenAI]:
    with OpenAI(api_key=platform.config.api_key, base_url=f"{platform.url}/openai/v1", max_retries=0) as client:
        yield client


def png(mode: str = "RGB", hole: bool = False) -> bytes:
    image = Image.new(mode, (64, 64), "black")
    if hole:
        image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read_of(answer: Any) -> dict[str, Any]:
    """What the worker has read of the request."""
    warnings = answer["warnings"] if isinstance(answer, dict) else answer.model_extra["warnings"]
    read: dict[str, Any] = json.loads(warnings[0])
    return read


def last_input(platform: Any) -> Any:
    return next(reversed(platform.queue.jobs.values())).input


# OpenAI's own client


def test_it_draws(client: OpenAI, platform: Any) -> None:
    answer = client.images.generate(prompt="a star", n=2, size="128x64", output_format="webp", extra_body={"seed": 5})
    read = read_of(answer)
    assert (read["prompts"], read["seeds"], read["size"], read["format"]) == (["a star"] * 2, [5, 6], "128x64", "webp")
    assert answer.data is not None and len(answer.data) == 2
    assert Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or ""))).size == (1, 1)
    assert (answer.background, answer.size, answer.usage) == ("opaque", "128x64", None)
    assert list(last_input(platform)) == ["openai_route", "openai_input"]
    assert last_input(platform)["openai_route"] == "/v1/images/generations"


def test_it_edits_with_files(client: OpenAI) -> None:
    """It sends them as multipart/form-data."""
    answer = client.images.edit(
        image=("a.png", png()), mask=("m.png", png("RGBA", hole=True)), prompt="a star", n=2, extra_body={"seed": 5}
    )
    read = read_of(answer)
    assert (read["task"], read["mask"], read["seeds"]) == ("inpainting", [255, 0], [5, 6])


def test_it_edits_several_files_if_the_model_can(client: OpenAI) -> None:
    with pytest.raises(
        openai.BadRequestError, match="image: got a list of 2; a job starts from one picture"
    ) as refused:
        client.images.edit(image=[("a.png", png()), ("b.png", png())], prompt="a star")
    assert refused.value.param == "image"


def test_it_lists_the_model_and_finds_it(client: OpenAI) -> None:
    assert [one.id for one in client.models.list()] == [SD1.name]
    assert client.models.retrieve(SD1.name).object == "model"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("org/other")
    assert missing.value.code == "model_not_found"


def test_its_errors_are_openais(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n: got 99; a job may ask for") as refused:
        client.images.generate(prompt="a star", n=99)
    assert (refused.value.param, refused.value.type, refused.value.code) == (
        "n",
        "invalid_request_error",
        "INVALID_INPUT",
    )
    with pytest.raises(openai.InternalServerError, match="too large") as failed:
        client.images.generate(prompt="too much")
    assert (failed.value.type, failed.value.code) == ("server_error", "OUT_OF_MEMORY")
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions") as unknown:
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "hello"}])
    assert unknown.value.code == "unknown_url"
    with pytest.raises(openai.BadRequestError, match="pictures come whole") as streamed:
        client.images.generate(prompt="a star", stream=True)
    assert streamed.value.param == "stream"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_a_failed_job_has_the_same_error(client: OpenAI, platform: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="a star", size="1x1")
    job = next(reversed(platform.queue.jobs.values()))
    assert job.state == "FAILED"
    assert json.loads(job.error)["error"] == job.output == refused.value.body


# Open WebUI and LiteLLM


def test_open_webuis_requests(platform: Any) -> None:
    """backend/open_webui/routers/images.py: JSON with `model`, `prompt`, `n`, `size`, `response_format` and what its
    owner adds; an edit as a form with `image`, or `image[]` for several, and every value as text."""
    data = {"model": "dall-e-2", "prompt": "a star", "n": 1, "size": "512x512", "response_format": "b64_json"}
    drawn = platform.http.post("/openai/v1/images/generations", json={**data, "steps": 9, "quality": "high"}).json()
    assert read_of(drawn)["size"] == "512x512" and "b64_json" in drawn["data"][0]

    form = {**data, "n": "2", "size": "64x64", "background": "opaque"}
    for name in ("image", "image[]"):
        files = [(name, ("0b1c.png", png(), "image/png"))]
        edited = platform.http.post("/openai/v1/images/edits", data=form, files=files).json()
        assert read_of(edited)["task"] == "image to image" and len(edited["data"]) == 2


def test_litellms_requests(platform: Any, client: OpenAI) -> None:
    """litellm/llms/openai/openai.py: images.generate of OpenAI's client with `model`, `prompt` and what is set, the
    rest in `extra_body`. litellm/llms/openai/image_edit/transformation.py: a form with `image[]` and `mask`."""
    drawn = client.images.with_raw_response.generate(
        model=SD1.name, prompt="a star", n=1, size="256x256", quality="standard", response_format="url", user="u",
        extra_body={"seed": 3, "guidance_scale": 5},
    )  # fmt: skip
    answer = drawn.parse()
    assert read_of(answer)["seeds"] == [3]
    assert answer.data is not None and str(answer.data[0].url).startswith("data:image/png;base64,")

    files = [
        ("image[]", ("image.png", png(), "image/png")),
        ("mask", ("mask.png", png("RGBA", hole=True), "image/png")),
    ]
    form = {"model": SD1.name, "prompt": "a star", "size": "64x64"}
    edited = platform.http.post("/openai/v1/images/edits", data=form, files=files).json()
    assert read_of(edited)["mask"] == [255, 0]


# JSON, and what is neither


@pytest.mark.parametrize("form", [{"image": picture(64, 64)}, {"images": [{"image_url": picture(64, 64)}]}])
def test_an_edit_may_be_json(platform: Any, form: dict[str, Any]) -> None:
    edited = platform.http.post("/openai/v1/images/edits", json={"prompt": "a star", **form})
    assert edited.status_code == 200 and read_of(edited.json())["task"] == "image to image"


def test_a_job_by_runsync_is_answered_with_the_same(platform: Any) -> None:
    given = {"openai_route": "/v1/images/generations", "openai_input": {"prompt": "a star", "seed": 1}}
    answer = platform.call("POST", "/runsync", json={"input": given})
    assert answer["status"] == "COMPLETED" and read_of(answer["output"])["seeds"] == [1]


@pytest.mark.parametrize(
    "route", ["v1/..%2f..%2frun", "v1/images/generations/", "%00", "", "v1/images/%2e%2e/x", "a" * 3000]
)
def test_an_unknown_route_is_answered_in_openais_shape(platform: Any, route: str) -> None:
    answer = platform.http.post(f"/openai/{route}", json={"prompt": "a star"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"3"])
def test_a_body_that_is_no_object_is_named(platform: Any, body: bytes) -> None:
    answer = platform.http.post("/openai/v1/images/generations", content=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "openai_input"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"", "multipart/form-data"),
        (b"--x\r\n" * 1000, "multipart/form-data; boundary=x"),
        (b"".join(b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' for _ in range(999)) + b"--x--\r\n",
         "multipart/form-data; boundary=x"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_never_becomes_a_job(platform: Any, body: bytes, content_type: str) -> None:
    before = len(platform.queue.jobs)
    answer = platform.http.post("/openai/v1/images/edits", content=body, headers={"Content-Type": content_type})
    assert 400 <= answer.status_code < 500
    assert len(platform.queue.jobs) == before


def test_a_form_is_no_longer_than_any_body(open_platform: Any) -> None:
    with open_platform(request_limit_bytes=1000, sync_request_limit_bytes=1000) as small:
        files = [("image", ("a.png", b"x" * 2000, "image/png"))]
        assert 400 <= small.http.post("/openai/v1/images/edits", data={"prompt": "x"}, files=files).status_code < 500
        assert not small.queue.jobs


def test_a_job_that_is_cancelled_ends_the_wait(open_platform: Any) -> None:
    with open_platform() as idle, OpenAI(api_key="local", base_url=f"{idle.url}/openai/v1", max_retries=0) as client:

        def cancel() -> None:
            job = idle.events.wait("queued").job_id
            idle.call("POST", f"/cancel/{job}")

        threading.Thread(target=cancel).start()
        with pytest.raises(openai.InternalServerError, match="the job is CANCELLED"):
            client.images.generate(prompt="a star")


def test_pictures_are_sent_as_they_came(platform: Any) -> None:
    content = png()
    platform.http.post(
        "/openai/v1/images/edits", data={"prompt": "x"}, files={"image": ("a.png", content, "image/png")}
    )
    assert last_input(platform)["openai_input"] == {"prompt": "x", "image": sent(Image.open(io.BytesIO(content)))}
