"""The answer to a job: its keys, in their order, and what it says of pictures and of failures."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from tests.helpers.asking import ask
from worker.api.response import Timings, count_bytes, make_answer, write_answer, write_failure
from worker.errors import InvalidInputError, OutOfMemoryError, WorkerBrokenError, WorkerError
from worker.output.delivery import DeliveredPictures
from worker.plan import make_plan
from worker.request import GeneratedImage

KEYS = ["images", "image_url", "seed", "seeds", "width", "height", "model", "scheduler", "steps", "task", "nsfw"]
REQUEST = replace(
    ask(num_images=3, seed=7, width=128, height=64, steps=9, scheduler="Euler", hires={"scale": 1.5}),
    warnings=("from the request",),
)
DRAWN = [GeneratedImage(picture, Image.new("RGB", (8, 8)), nsfw=False) for picture in REQUEST.pictures]
TIMINGS = Timings(0.5, 0.1, 1.2, 0.1, 0.01, 0.02)
DELIVERED = DeliveredPictures(("first", "second", "third"), warnings=("from the delivery",))


def _answer(drawn: list[GeneratedImage] = DRAWN, delivered: DeliveredPictures = DELIVERED) -> dict[str, object]:
    notes = ["from the prompt"]
    return write_answer(make_answer("a model", make_plan(REQUEST), drawn, notes, TIMINGS, delivered))


def test_an_answer_tells_what_was_made_and_how() -> None:
    assert list(_answer()) == [*KEYS, "timings", "warnings"]
    assert _answer() == {
        "images": ["first", "second", "third"],
        "image_url": "first",
        "seed": 7,
        "seeds": [7, 8, 9],
        "width": 192,
        "height": 96,
        "model": "a model",
        "scheduler": "EulerDiscreteScheduler",
        "steps": 9,
        "task": "text to image",
        "nsfw": [False, False, False],
        "timings": {
            "waited_s": 0.5,
            "text_s": 0.1,
            "denoise_s": 1.2,
            "decode_s": 0.1,
            "encode_s": 0.01,
            "deliver_s": 0.02,
        },
        "warnings": ["from the request", "from the prompt", "from the delivery"],
    }


def test_an_answer_tells_what_few_jobs_ask_for() -> None:
    pictures = (Image.new("RGB", (8, 8)),) * 3
    asked = replace(REQUEST, references=pictures, true_cfg_scale=2.5, max_sequence_length=256)
    answer = write_answer(make_answer("a model", make_plan(asked), DRAWN, [], TIMINGS, DELIVERED))

    assert answer["task"] == "editing"
    assert (answer["references"], answer["true_cfg_scale"], answer["max_sequence_length"]) == (3, 2.5, 256)


def test_a_picture_that_is_not_told_twice_is_the_only_difference() -> None:
    whole, shorter = _answer(), _answer(delivered=replace(DELIVERED, with_image_url=False))
    assert whole.pop("image_url") == "first"
    assert shorter == whole


def test_what_happened_while_drawing_is_told_between_the_other_warnings() -> None:
    drawn = [
        replace(DRAWN[0], low_memory=True, nsfw=True),
        replace(DRAWN[1], low_memory=True, resized_from=(32, 32)),
        replace(DRAWN[2], resized_from=(32, 32)),
    ]
    answer = _answer(drawn)
    assert answer["nsfw"] == [True, False, False]
    assert answer["warnings"] == [
        "from the request",
        "from the prompt",
        "memory ran out; 2 of the pictures were drawn a second time, in a leaner way",
        "this model drew 32x32, which was resized",
        "from the delivery",
    ]


def test_its_size_is_that_of_what_the_sdk_posts() -> None:
    answer = make_answer("模型 é", make_plan(REQUEST), DRAWN, [], TIMINGS, DELIVERED)
    posted = json.dumps({"output": write_answer(answer)}, ensure_ascii=False).encode()
    assert count_bytes(answer) == len(posted)


@pytest.mark.parametrize(
    ("failure", "written"),
    [
        (
            InvalidInputError(["a: no", "b.c: got 1; no"]),
            {
                "error": "INVALID_INPUT: a: no; b.c: got 1; no",
                "code": "INVALID_INPUT",
                "message": "a: no; b.c: got 1; no",
                "fields": [{"field": "a", "problem": "no"}, {"field": "b.c", "problem": "got 1; no"}],
            },
        ),
        (
            OutOfMemoryError("too large"),
            {"error": "OUT_OF_MEMORY: too large", "code": "OUT_OF_MEMORY", "message": "too large"},
        ),
        (
            WorkerBrokenError("it is over"),
            {
                "error": "WORKER_BROKEN: it is over",
                "code": "WORKER_BROKEN",
                "message": "it is over",
                "refresh_worker": True,
            },
        ),
    ],
)
def test_a_failure_is_told_with_its_code(failure: WorkerError, written: dict[str, object]) -> None:
    assert write_failure(failure) == written
    assert list(write_failure(failure)) == list(written)
