"""Jobs that bring pictures, through the real worker: started from, painted over, watched, and asked for again."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw

SMALL = {"prompt": "a star", "seed": 3, "steps": 4}


@pytest.fixture(scope="module")
def worker(open_platform: Any, open_worker: Any, tiny_sd1: str) -> Iterator[Any]:
    # With several at once, the SDK does not rest for a second after each.
    env = {"MODEL_NAME": tiny_sd1, "JOBS_AT_ONCE": "4"}
    with open_platform() as platform, open_worker(platform, env=env) as worker:
        yield worker


@pytest.fixture
def platform(worker: Any) -> Any:
    return worker.endpoint


def data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def photo() -> Image.Image:
    image = Image.linear_gradient("L").resize((96, 64))
    return Image.merge("RGB", (image, image.rotate(180), image))


def mask() -> Image.Image:
    image = Image.new("L", (96, 64), 0)
    ImageDraw.Draw(image).rectangle((48, 0, 96, 64), fill=255)
    return image


def test_inpainting_returns_the_untouched_pixels_to_the_bit(platform: Any) -> None:
    output = platform.ask({**SMALL, "image": data_uri(photo()), "mask": data_uri(mask())})["output"]

    changed = ImageChops.difference(opened(output["images"][0]), photo())
    assert (output["width"], output["height"]) == (96, 64)
    assert changed.crop((0, 0, 48, 64)).getbbox() is None
    assert changed.crop((48, 0, 96, 64)).getbbox() is not None
    assert output["warnings"] == []


def test_a_picture_started_from_is_fitted_and_the_caller_is_told(platform: Any) -> None:
    output = platform.ask({**SMALL, "image_url": data_uri(photo().resize((99, 70))), "strength": 0.5})["output"]

    assert opened(output["images"][0]).size == (output["width"], output["height"]) == (96, 64)
    assert output["warnings"] == ["image_url: 99x70 was scaled and its edges cut to 96x64"]


def test_a_picture_given_back_is_drawn_again(platform: Any) -> None:
    first = platform.ask({**SMALL, "negative_prompt": "blue", "scheduler": "Euler", "num_images": 2})["output"]
    again = platform.ask({"replay": first["images"][1]})["output"]
    other = platform.ask({"replay": first["images"][1], "seed": 99})["output"]

    assert again["seeds"] == [4]
    assert again["images"][0] == first["images"][1]
    assert other["scheduler"] == first["scheduler"]
    assert other["images"][0] != first["images"][1]


def test_a_job_is_watched_only_if_it_asks(platform: Any) -> None:
    watched = platform.submit({**SMALL, "steps": 150, "preview": True})
    plain = platform.submit({**SMALL, "steps": 150})
    platform.wait(watched)
    platform.wait(plain)

    updates = {
        job: [event.data["output"] for event in platform.events.of("progress", job_id=job)] for job in (watched, plain)
    }
    assert opened(updates[watched][-1]["preview"]).size == (8, 8)  # a pixel for each latent
    assert all("preview" not in update for update in updates[plain])


def test_pictures_that_cannot_be_had_are_refused_by_field_and_nothing_inside_is_told(platform: Any) -> None:
    refused = {
        "http://169.254.169.254/latest/meta-data?token=canary": "image: got a URL at 169.254.169.254; ",
        "http://localhost:1/secret-path.png": "image: got a URL at localhost",
        "/etc/passwd": "image: got '/etc/passwd'; ",
        data_uri(photo())[:-140]: "image: got a data URI of ",
    }
    for reference, told in refused.items():
        answer = platform.ask({**SMALL, "image": reference})
        assert answer["error"].startswith(f"INVALID_INPUT: {told}"), answer["error"]
        assert "canary" not in answer["error"] and "secret-path" not in answer["error"]
    assert platform.ask(SMALL)["status"] == "COMPLETED"
