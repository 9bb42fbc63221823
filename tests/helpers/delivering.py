"""From encoded pictures to the answer that the SDK gets, without drawing any."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from tests.helpers.asking import ask
from worker.api.response import Timings, count_bytes, make_answer, write_answer
from worker.output.delivery import Delivery, deliver
from worker.output.encode import File
from worker.plan import make_plan
from worker.request import GeneratedImage

MODEL = "模型 é"  # more bytes than characters


def deliver_files(files: Sequence[File], to: Delivery, *warnings: str) -> dict[str, Any]:
    """The answer to a job whose pictures are these files, with the seeds 1, 2, ..., and which has warned of this."""
    request = replace(ask(num_images=len(files), seed=1), warnings=warnings)
    drawn = [GeneratedImage(picture, Image.new("RGB", (8, 8)), nsfw=False) for picture in request.pictures]
    complete = partial(make_answer, MODEL, make_plan(request), drawn, (), Timings(0.0, 0.1, 1.2, 0.1, 0.01, 0.0))
    return write_answer(complete(deliver(files, to, lambda pictures: count_bytes(complete(pictures)))))
