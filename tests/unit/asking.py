"""Models to ask, as a worker would describe them after loading, without loading any; and asking in one line."""

from dataclasses import replace
from typing import Any

from worker import schedulers
from worker.errors import InvalidInput
from worker.families import FAMILIES, Model
from worker.request import Request, parse
from worker.settings import Bucket

# family -> native size in pixels, the scheduler in the published model_index.json
_PUBLISHED = {
    "shapes": (64, "DDIMScheduler"),
    "sd1": (512, "PNDMScheduler"),
    "sd2": (768, "DDIMScheduler"),
    "sdxl": (1024, "EulerDiscreteScheduler"),
    "sd3": (1024, "FlowMatchEulerDiscreteScheduler"),
    "flux-schnell": (1024, "FlowMatchEulerDiscreteScheduler"),
    "flux-dev": (1024, "FlowMatchEulerDiscreteScheduler"),
}


def model_of(family_name: str, **changes: Any) -> Model:
    """A model of this family with the family's limits; `changes` are Model's attributes."""
    family = next(row for row in FAMILIES if row.name == family_name)
    size, own = _PUBLISHED[family_name]
    default = schedulers.find(family.scheduler) if family.scheduler else schedulers.of_class(own, family.noise)
    assert default is not None
    model = Model(
        name=family_name,
        family=family,
        width=size,
        height=size,
        prediction_type="epsilon",
        scheduler=default,
        safety_checker=False,
        max_pixels=family.max_pixels,
        max_steps=family.max_steps,
        max_images=family.max_images,
    )
    return replace(model, **changes)


SD1 = model_of("sd1")
SDXL = model_of("sdxl")


def ask(model: Model = SD1, bucket: Bucket | None = None, s3: object = None, **fields: Any) -> Request:
    """The request that a job with these fields becomes; a prompt is added, `s3` stands beside the input."""
    job = {"id": "test", "input": {"prompt": "a red square", **fields}}
    return parse(job if s3 is None else {**job, "s3Config": s3}, model, bucket)


def refusal(model: Model = SD1, **fields: Any) -> str:
    """What the caller is told when a job with these fields is refused; fails when it is accepted."""
    try:
        request = ask(model, **fields)
    except InvalidInput as error:
        return str(error)
    raise AssertionError(f"accepted: {request}")
