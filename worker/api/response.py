"""What a job is answered, written in one place: its pictures and what belongs to them, or why there are none."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from worker.errors import InvalidInputError, WorkerError
from worker.output.delivery import DeliveredPictures
from worker.plan import Plan
from worker.request import GeneratedImage


@dataclass(frozen=True)
class Timings:
    """Seconds that parts of a job took, one after the other.

    Attributes:
        waited_s: until the jobs before it were drawn.
        text_s: on the device, for the prompts.
        denoise_s: on the device, for all steps.
        decode_s: on the device, from latents to pictures.
        encode_s: what encoding adds once the last picture is drawn; the others are encoded meanwhile.
        deliver_s: until the pictures are where the answer says.
    """

    waited_s: float
    text_s: float
    denoise_s: float
    decode_s: float
    encode_s: float
    deliver_s: float


@dataclass(frozen=True)
class Answer:
    """The answer to a job whose pictures were made; the attributes are its keys, in this order, without those of None.

    Attributes:
        images: data URIs, URLs or, in the local test, paths; prompt by prompt, and layer by layer.
        image_url: the first of them once more; left out where there is no room for it.
        seed: of the first picture.
        seeds: of each picture.
        width, height: of each picture, in pixels.
        model: that drew them, by name.
        scheduler: its class in diffusers.
        steps: of the first pass, as asked for.
        task: what the first pass started from, such as `text to image` or `editing`.
        references: how many pictures the instruction spoke of; left out where there were none.
        layers: that each picture is split into, one after the other in `images`, the lowest first; left out where it is
            not.
        true_cfg_scale: as asked for; left out where it was not.
        max_sequence_length: as asked for; left out where it was not.
        nsfw: whether the safety checker has blackened it, for each picture.
        timings: seconds, one part after the other.
        acceleration: how the passes of the last picture were done: `off`, as written, `graphs` or `compile`; left
            out on a CPU.
        cost: of its time, in the owner's currency; left out without PRICE_PER_SECOND.
        warnings: what was changed or ignored.
    """

    images: list[str]
    image_url: str | None
    seed: int
    seeds: list[int]
    width: int
    height: int
    model: str
    scheduler: str
    steps: int
    task: str
    references: int | None
    layers: int | None
    true_cfg_scale: float | None
    max_sequence_length: int | None
    nsfw: list[bool]
    timings: Timings
    acceleration: str | None
    cost: float | None
    warnings: list[str]


def make_answer(
    model: str,
    plan: Plan,
    generated: Sequence[GeneratedImage],
    prompt_warnings: Sequence[str],
    timings: Timings,
    delivered: DeliveredPictures,
    cost: float | None = None,
) -> Answer:
    """The answer to a job that was drawn by this plan."""
    request = plan.request
    seeds = [one.picture.seed for one in generated]
    return Answer(
        images=list(delivered.images),
        image_url=delivered.images[0] if delivered.with_image_url else None,
        seed=seeds[0],
        seeds=seeds,
        width=plan.size[0],
        height=plan.size[1],
        model=model,
        scheduler=request.scheduler.class_name,
        steps=request.num_inference_steps,
        task=plan.passes[0].task,
        references=len(request.references) or None,
        layers=request.layers,
        true_cfg_scale=request.true_cfg_scale,
        max_sequence_length=request.max_sequence_length,
        nsfw=[one.nsfw for one in generated],
        timings=timings,
        acceleration=generated[-1].acceleration,
        cost=cost,
        warnings=[*request.warnings, *prompt_warnings, *_list_drawing_warnings(generated), *delivered.warnings],
    )


def _list_drawing_warnings(generated: Sequence[GeneratedImage]) -> list[str]:
    again = sum(one.low_memory for one in generated)
    memory = [f"memory ran out; {again} of the pictures were drawn a second time, in a leaner way"] if again else []
    sizes = dict.fromkeys(one.resized_from for one in generated if one.resized_from)
    return memory + [f"this model drew {width}x{height}, which was resized" for width, height in sizes]


def write_answer(answer: Answer) -> dict[str, Any]:
    """The handler's return value for these pictures."""
    return {key: value for key, value in asdict(answer).items() if value is not None}


def write_failure(failure: WorkerError) -> dict[str, Any]:
    """The handler's return value for this failure.

    The SDK takes `error` and `refresh_worker` out of it. RunPod's client hands on the rest alone, so it says why, too.
    """
    written: dict[str, Any] = {
        "error": f"{failure.code}: {failure}",
        "code": failure.code,
        "message": str(failure),
    }
    if isinstance(failure, InvalidInputError):
        found = (problem.partition(": ") for problem in failure.problems)
        written["fields"] = [{"field": field, "problem": text} for field, _, text in found]
    return {**written, "refresh_worker": True} if failure.refresh_worker else written


def count_bytes(answer: Answer) -> int:
    """Size of the body that the SDK posts, which is UTF-8 and not escaped to ASCII.

    The pictures are megabytes, which JSON would copy twice: they are data URIs here, and take what they are long.
    """
    pictures = [*answer.images, *([] if answer.image_url is None else [answer.image_url])]
    rest = replace(answer, images=[""] * len(answer.images), image_url=None if answer.image_url is None else "")
    body = json.dumps({"output": write_answer(rest)}, ensure_ascii=False)
    return len(body.encode()) + sum(len(picture) for picture in pictures)
