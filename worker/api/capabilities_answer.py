"""What the loaded model can do, as JSON: the answer to `{"capabilities": true}`, from which a client makes its form.

Fields come from the table of request fields, narrowed to what this model takes; nothing of the machine is in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from worker.api.endpoint import Endpoint
from worker.api.field_description import FieldDescription, list_fields
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, Capabilities
from worker.models.schedulers import Scheduler
from worker.version import VERSION


@dataclass(frozen=True)
class TaskDescription:
    """What a drawing can start from.

    Attributes:
        name: as `Capabilities` has it: "text to image", "inpainting with ControlNet", ...
        needs: the fields that ask for it.
        strength: for jobs that name none; None where the task has no strength.
        refuses: fields that the model takes for other tasks alone.
    """

    name: str
    needs: tuple[str, ...]
    strength: float | None
    refuses: tuple[str, ...]


@dataclass(frozen=True)
class SchedulerDescription:
    """A scheduler that a job may name.

    Attributes:
        min_steps, max_steps: that it takes here.
        starts_from_picture: whether it goes with `image` and `hires`.
        caveat: what the answer to such a job warns of.
    """

    name: str
    min_steps: int
    max_steps: int
    starts_from_picture: bool
    caveat: str | None


@dataclass(frozen=True)
class ControlDescription:
    """A ControlNet that a job may name.

    Attributes:
        modes: of a union, name -> number.
        mode_count: how many there are, some of which may have no name.
        needs_mask: whether it is for inpainting alone, where the job's own image is enough.
        built_in: whether it is the model itself, which takes no scale, start and end.
    """

    name: str
    modes: Mapping[str, int]
    mode_count: int
    needs_mask: bool
    built_in: bool


@dataclass(frozen=True)
class SizeDescription:
    """Sizes in pixels.

    Attributes:
        width, height: for jobs that say none.
        step: both are made multiples of it.
        max_pixels: width times height.
    """

    width: int
    height: int
    step: int
    max_pixels: int


@dataclass(frozen=True)
class LimitDescription:
    """What a job may take.

    Attributes:
        images: that it may ask for, prompts times `num_images`.
        references: pictures that an instruction may speak of; 0 for a model that edits none.
        input_bytes: of one picture file that it brings.
        result_bytes: of its answer.
        seconds: after which it is stopped; None where the owner has set no limit.
    """

    images: int
    references: int
    input_bytes: int
    result_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class CapabilitiesAnswer:
    """All of it; the attributes are the keys of the JSON.

    Attributes:
        version: of the worker.
        model: its name, as answers have it.
        scheduler: of jobs that name none.
        delivery: the ways in which pictures can be returned: base64, and s3 where the endpoint has a bucket.
        jobs_at_once: that a worker takes.
        previews: whether a drawing can be watched.
        weighted_prompts: whether `(word:1.3)` is understood.
        safety_checker: whether pictures are checked.
    """

    version: str
    model: str
    family: str
    family_title: str
    tasks: tuple[TaskDescription, ...]
    fields: tuple[FieldDescription, ...]
    size: SizeDescription
    scheduler: str
    schedulers: tuple[SchedulerDescription, ...]
    loras: tuple[str, ...]
    controlnets: tuple[ControlDescription, ...]
    limits: LimitDescription
    delivery: tuple[str, ...]
    jobs_at_once: int
    previews: bool
    weighted_prompts: bool
    safety_checker: bool


def asks_for_capabilities(given: object) -> bool:
    """Whether a job's input asks for nothing but what the model can do."""
    if not isinstance(given, Mapping) or given.keys() != {"capabilities"}:
        return False
    value = given["capabilities"]
    return value is True or (isinstance(value, str) and value.lower() == "true")


def tell_capabilities(job: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any] | None:
    """The answer to a job that asks for nothing but what the model can do; None for any other."""
    if not asks_for_capabilities(job.get("input")):
        return None
    return {"capabilities": _drop_unknown(asdict(describe_capabilities(endpoint)))}


def describe_capabilities(endpoint: Endpoint) -> CapabilitiesAnswer:
    """What a client may ask of this endpoint."""
    model, settings = endpoint.model, endpoint.settings
    delivery = ("base64", "s3") if endpoint.output.bucket else ("base64",)
    fields = list_fields(model, delivery)
    names = [one.name for one in fields]
    tasks = (_describe_task(task, model, names) for task in model.tasks)
    return CapabilitiesAnswer(
        version=VERSION,
        model=model.name,
        family=model.family.name,
        family_title=model.family.title,
        tasks=tuple(task for task in tasks if {*task.needs} <= {*names}),
        fields=fields,
        size=SizeDescription(model.width, model.height, model.family.size_step, model.max_pixels),
        scheduler=model.scheduler.name,
        schedulers=tuple(_describe_scheduler(row, model) for row in model.list_scheduler_rows()),
        loras=model.loras,
        controlnets=tuple(_describe_control(name, model) for name in model.controlnets),
        limits=LimitDescription(
            images=model.max_images,
            references=model.editing.references if model.editing else 0,
            input_bytes=settings.max_input_bytes,
            result_bytes=settings.max_result_bytes,
            seconds=settings.job_timeout_s,
        ),
        delivery=delivery,
        jobs_at_once=endpoint.jobs_at_once,
        previews=model.previews,
        weighted_prompts=model.weighted_prompts and not model.plain_prompts,
        safety_checker=model.safety_checker,
    )


def _drop_unknown(value: Any) -> Any:
    """The same in the types of JSON, without keys that hold None."""
    if isinstance(value, Mapping):
        return {key: _drop_unknown(one) for key, one in value.items() if one is not None}
    return [_drop_unknown(one) for one in value] if isinstance(value, (list, tuple)) else value


def _describe_task(task: str, model: Capabilities, fields: Sequence[str]) -> TaskDescription:
    start = task.removesuffix(CONTROLLED)
    needs = {IMAGE: ("image",), MASK: ("image", "mask"), EDIT: ("images",)}.get(start, ())
    controlled = ("controlnet",) if task.endswith(CONTROLLED) else ()
    strength = model.tasks[task].get("strength")
    arguments = {"guidance_rescale": "guidance_rescale", "ip_adapter": "ip_adapter_image", "strength": "strength"}
    arguments |= {name: name for name in ("true_cfg_scale", "image_guidance_scale")}
    refused = [name for name, argument in arguments.items() if name in fields and not model.accepts(task, argument)]
    hires = ["hires"] if "hires" in fields and (needs or controlled) else []
    default = float(strength) if isinstance(strength, (int, float)) else None
    return TaskDescription(task, (*needs, *controlled), default, (*refused, *hires))


def _describe_scheduler(row: Scheduler, model: Capabilities) -> SchedulerDescription:
    return SchedulerDescription(row.name, *model.step_limits(row), row.starts_from_picture, row.caveat)


def _describe_control(name: str, model: Capabilities) -> ControlDescription:
    kind = model.control_kind(name)
    return ControlDescription(name, dict(kind.names), kind.modes, kind.needs_mask, kind.built_in)
