"""The real worker process on the emulated platform: a job goes in, pictures come out, and the caller is kept posted."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from PIL import Image

from tests.helpers.log_lines import read_messages


@pytest.fixture(scope="module")
def worker(open_platform: Any, open_worker: Any, tiny_sd1: str) -> Iterator[Any]:
    environment = {"MODEL_NAME": tiny_sd1, "MAX_RESULT_BYTES": "60000", "HF_TOKEN": "hf_canary"}
    with open_platform() as platform, open_worker(platform, env=environment) as worker:
        yield worker


@pytest.fixture
def platform(worker: Any) -> Any:
    return worker.endpoint


def picture(data_uri: str) -> Image.Image:
    head, data = data_uri.split(",", 1)
    assert head.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_the_answer_holds_pictures_and_what_made_them(platform: Any) -> None:
    job = {"prompt": "a star", "seed": 7, "num_images": 2, "steps": 4, "width": 72, "height": 64}

    answer = platform.ask(job)

    output = answer["output"]
    assert answer["status"] == "COMPLETED"
    assert [picture(uri).size for uri in output["images"]] == [(72, 64)] * 2
    assert output["image_url"] == output["images"][0]
    assert output["seed"] == 7
    assert output["seeds"] == [7, 8]
    assert output["scheduler"] == "LMSDiscreteScheduler"
    assert output["steps"] == 4
    assert output["nsfw"] == [False, False]
    assert output["warnings"] == []
    assert "Seed: 8" in picture(output["images"][1]).text["parameters"]


def test_what_callers_are_shown_is_as_the_endpoints_openapi_says(platform: Any) -> None:
    document = httpx.get(f"{platform.base_url}/openapi.json", trust_env=False).json()
    drawn = platform.submit({"prompt": "a star", "steps": 60, "num_images": 2, "preview": True})
    shown = {
        "Pictures": platform.wait(drawn)["output"],
        "Progress": platform.events.of("progress", job_id=drawn)[0].data["output"],
        "Failure": platform.ask({"promt": "a star"})["output"],
    }

    for name, output in shown.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(output)


def test_one_picture_of_a_batch_can_be_made_again_alone(platform: Any) -> None:
    batch = platform.ask({"prompt": ["a star", "a heart"], "seed": [5, 9], "steps": 3})["output"]
    alone = platform.ask({"prompt": "a heart", "seed": 9, "steps": 3})["output"]

    assert picture(batch["images"][1]).tobytes() == picture(alone["images"][0]).tobytes()


def test_a_job_may_ask_what_the_model_can_do(worker: Any, platform: Any, tiny_sd1: str) -> None:
    output = platform.ask({"capabilities": True})["output"]

    told = output["capabilities"]
    fields = {field["name"]: field for field in told["fields"]}
    assert output.keys() == {"capabilities"}, "nothing is drawn"
    assert told["model"] == platform.ask({"prompt": "a star", "steps": 2})["output"]["model"]
    assert fields["prompt"]["required"] and fields["num_inference_steps"]["maximum"] == 500
    assert "hf_canary" not in str(told) and tiny_sd1 not in str(told)
    assert any(message.startswith("capabilities; ") for message in read_messages(worker.log()))


def test_bad_input_fails_the_job_and_not_the_worker(worker: Any, platform: Any) -> None:
    refused = platform.ask({"promt": "a star", "num_inference_steps": 10_000})
    fine = platform.ask({"prompt": "a star", "steps": 2})

    assert refused["status"] == "FAILED"
    assert refused["error"].startswith("INVALID_INPUT: ")
    for part in ("prompt: required", "promt: got 'a star'; unknown field; the nearest is prompt", "10000", "2 to 500"):
        assert part in refused["error"]
    assert refused["output"]["code"] == "INVALID_INPUT"
    assert refused["error"] == f"INVALID_INPUT: {refused['output']['message']}"
    assert [one["field"] for one in refused["output"]["fields"]] == ["prompt", "promt", "num_inference_steps"]
    assert fine["status"] == "COMPLETED"
    assert fine["workerId"] == worker.id


def test_progress_counts_up_and_ends_before_the_result(platform: Any) -> None:
    job_id = platform.submit({"prompt": "a star", "steps": 300, "num_images": 2})
    platform.wait(job_id)

    updates = [event.data["output"] for event in platform.events.of("progress", job_id=job_id)]
    moments = [event.at for event in platform.events.of("progress", job_id=job_id)]
    assert updates[0]["step"] == 1
    assert all(update["total"] == 600 for update in updates)
    assert [update["step"] for update in updates] == sorted(update["step"] for update in updates)
    assert all(update["percent"] == pytest.approx(update["step"] / 6, abs=0.06) for update in updates)
    assert all(update["seconds_left"] >= 0 for update in updates)
    assert len(updates) >= 3
    assert moments[-1] - moments[0] > 0.4 * (len(moments) - 1)  # half a second apart, but for the network's jitter
    assert platform.events.story(job_id)[-2:] == ["result", "completed"]
    assert not platform.events.of("late_progress", job_id=job_id)


def test_a_result_over_the_limit_is_made_smaller_or_refused_with_the_remedy(platform: Any) -> None:
    large = {"prompt": "a star", "steps": 2, "width": 192, "height": 192}

    as_webp = platform.ask(large)
    as_png = platform.ask({**large, "output_format": "png"})

    assert picture(as_webp["output"]["images"][0]).format == "WEBP"
    assert "webp" in as_webp["output"]["warnings"][0]
    assert as_png["status"] == "FAILED"
    assert as_png["error"].startswith("RESULT_TOO_LARGE: ")
    assert "60000" in as_png["error"]
    assert "bucket" in as_png["error"]


def test_nothing_secret_or_long_is_logged(worker: Any, platform: Any) -> None:
    platform.ask({"prompt": "a prompt that is nobody's business", "steps": 2})

    assert "hf_canary" not in worker.log()
    assert "nobody's business" not in worker.log()
    assert "base64" not in worker.log()
    assert max(map(len, read_messages(worker.log()))) < 500
