"""A worker with the real SDK and the real contract with OpenAI's clients, for a model that is not there: it reads each
job and answers with pictures of one pixel, and in `warnings` what it has read."""

import json
from collections.abc import Mapping
from typing import Any

import runpod

from tests.helpers.asking import SD1, endpoint_of, picture
from worker.api.contract import choose_contract
from worker.api.response import Answer, Timings
from worker.errors import OutOfMemoryError, WorkerError
from worker.images.load import PictureRules
from worker.output.options import OutputRules


def handler(job: dict[str, Any]) -> dict[str, Any]:
    contract = choose_contract(job)
    try:
        return contract.tell(job, endpoint_of(SD1)) or draw(job)
    except WorkerError as failure:
        return contract.write_failure(failure)


def draw(job: Mapping[str, Any]) -> dict[str, Any]:
    contract = choose_contract(job)
    request, output = contract.parse(job, SD1, PictureRules(), OutputRules())
    if request.pictures[0].prompt == "too much":
        raise OutOfMemoryError("too large")
    start = request.init_image
    read = {
        "prompts": [one.prompt for one in request.pictures],
        "seeds": [one.seed for one in request.pictures],
        "size": f"{request.width}x{request.height}",
        "task": request.task,
        "mask": None if start is None or start.mask is None else [start.mask.getpixel((x, 8)) for x in (8, 56)],
        "format": output.format,
    }
    answer = Answer(
        images=[picture(1, 1)] * len(request.pictures),
        image_url=None,
        seed=read["seeds"][0],
        seeds=read["seeds"],
        width=request.width,
        height=request.height,
        model=SD1.name,
        scheduler="",
        steps=1,
        task=request.task,
        references=None,
        layers=None,
        true_cfg_scale=None,
        max_sequence_length=None,
        nsfw=[],
        timings=Timings(0, 0, 0, 0, 0, 0),
        acceleration=None,
        cost=None,
        warnings=[json.dumps(read), *request.warnings],
    )
    return contract.write_answer(answer, output)


if __name__ == "__main__":
    # With more than one at once, the SDK does not rest for a second after each.
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: 8})
