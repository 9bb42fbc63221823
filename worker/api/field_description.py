"""The request fields that a model takes, with their bounds, defaults and choices for it: the rows of a form."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from worker.api.elsewhere import ElsewhereFields
from worker.api.schema import Fields
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT, Capabilities
from worker.models.editing import DEFAULT_LAYERS

_PICTURES = ("image", "images", "mask", "replay")
_ALSO = ("mask_blur", "inpainting_mask_invert")  # of the fields that come from elsewhere, which mean something here
_LEFT_OUT = ("nsfw", "capabilities", "high_noise_frac", "refiner_inference_steps")  # no effect, or short forms
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class FieldDescription:
    """A field, or a part of an object that a field holds; None is not known or has no bound.

    Attributes:
        type: string, integer, number, boolean, object, or picture: a string that names one.
        many: whether a list of such may stand there.
        meaning: for people.
        required: whether a job without it is refused.
        exclusive_minimum, exclusive_maximum: bounds that may not be reached themselves.
        step: a value is made a multiple of it.
        max_items: of a list.
        default: what holds where it is left out.
        choices: the only values allowed.
        parts: of an object.
    """

    name: str
    type: str
    many: bool = False
    meaning: str = ""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    step: int | None = None
    max_items: int | None = None
    default: Any = None
    choices: tuple[str, ...] | None = None
    parts: tuple["FieldDescription", ...] | None = None


def list_fields(model: Capabilities, delivery: Sequence[str]) -> tuple[FieldDescription, ...]:
    """Those that this model takes, in the order of the table.

    Args:
        delivery: the ways in which pictures can be returned.
    """
    schema = Fields.model_json_schema(by_alias=False)
    own = [name for name in Fields.model_fields if name not in ElsewhereFields.model_fields and name not in _LEFT_OUT]
    taken = [name for name in (*own, *_ALSO) if _TAKEN.get(name, _always)(model)]
    needed = [name for name in taken if Fields.model_fields[name].is_required()]
    rows = [_describe(name, schema["properties"][name], schema, needed) for name in taken]
    narrower = _narrow(model, delivery)
    return tuple(replace(row, **narrower.get(row.name, {})) for row in rows)


def _always(model: Capabilities) -> bool:
    return True


def _accepts(argument: str) -> Callable[[Capabilities], bool]:
    """Whether the pipeline for one of the tasks takes this argument."""
    return lambda model: any(argument in arguments for arguments in model.tasks.values())


def _starts(model: Capabilities) -> bool:
    return model.can_start(IMAGE) or model.can_start(MASK) or EDIT in model.tasks


def _fills(model: Capabilities) -> bool:
    return model.can_start(MASK)


def _has_negative(model: Capabilities) -> bool:
    return model.family.negative_prompt or _accepts("true_cfg_scale")(model)


# Field -> whether a model takes it; all take the others.
_TAKEN: Mapping[str, Callable[[Capabilities], bool]] = MappingProxyType(
    {
        "negative_prompt": _has_negative,
        "guidance_scale": lambda model: model.family.guidance is not None,
        "true_cfg_scale": _accepts("true_cfg_scale"),
        "image_guidance_scale": _accepts("image_guidance_scale"),
        "max_sequence_length": lambda model: model.max_sequence_length > 0,
        "image": _starts,
        "images": lambda model: EDIT in model.tasks,
        "layers": lambda model: model.splits,
        "mask": _fills,
        "mask_blur": _fills,
        "inpainting_mask_invert": _fills,
        "outpaint": _fills,
        "strength": _accepts("strength"),
        "controlnet": lambda model: bool(model.controlnets) and TEXT + CONTROLLED in model.tasks,
        "ip_adapter": lambda model: model.ip_adapter and _accepts("ip_adapter_image")(model),
        "loras": lambda model: bool(model.loras),
        "lora_scale": lambda model: bool(model.loras),
        "clip_skip": lambda model: model.clip_layers > 1,
        "guidance_rescale": _accepts("guidance_rescale"),
        "hires": lambda model: IMAGE in model.tasks,
        "refiner": lambda model: model.refiner,
        "preview": lambda model: model.previews,
        "safety_checker": lambda model: model.safety_checker,
    }
)


def _narrow(model: Capabilities, delivery: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Field -> what this model says of it beyond the table."""
    fewest, most = model.step_limits(model.scheduler)
    step = model.family.size_step
    return {
        "negative_prompt": {"default": model.negative_prompt},
        "num_images": {"maximum": model.max_images},
        "width": {"default": model.width, "step": step},
        "height": {"default": model.height, "step": step},
        "scheduler": {"default": model.scheduler.name, "choices": tuple(model.list_schedulers())},
        "num_inference_steps": {
            "minimum": fewest,
            "maximum": most,
            "default": model.default_steps(model.scheduler),
        },
        "guidance_scale": {"default": model.guidance_scale},
        "image_guidance_scale": {"default": model.tasks.get(EDIT, {}).get("image_guidance_scale")},
        "max_sequence_length": {"maximum": model.max_sequence_length},
        "seed": {"minimum": -1, "maximum": _MAX_SEED},
        "images": {"max_items": model.editing.references if model.editing else None},
        "layers": {"default": DEFAULT_LAYERS},
        "clip_skip": {"maximum": model.clip_layers - 1},
        "delivery": {"choices": ("auto", *delivery)},
        "safety_checker": {"default": model.safety_checker},
        **({"output_format": {"choices": ("png", "webp")}} if model.splits else {}),
        **_narrow_hires(model),
    }


def _narrow_hires(model: Capabilities) -> dict[str, dict[str, Any]]:
    """`hires` without the upscalers that the model has not."""
    schema = Fields.model_json_schema(by_alias=False)
    row = _describe("hires", schema["properties"]["hires"], schema)
    choices = ("lanczos", "latent") if model.latent_upscaling else ("lanczos",)
    parts = (replace(part, choices=choices) if part.name == "upscaler" else part for part in row.parts or ())
    return {"hires": {"parts": tuple(parts)}}


def _describe(
    name: str, declared: Mapping[str, Any], schema: Mapping[str, Any], needed: Collection[str] = ()
) -> FieldDescription:
    """What its JSON schema says of a field."""
    variants = [one for one in declared.get("anyOf", [declared]) if one.get("type") != "null"]
    lists = [one for one in variants if one.get("type") == "array"]
    one = next((one for one in variants if one.get("type") != "array"), None) or lists[0]["items"]
    if "$ref" in one:
        one = schema["$defs"][one["$ref"].rpartition("/")[2]]
    max_items = next((one.get("maxItems") for one in lists), None)
    return FieldDescription(
        name,
        "picture" if name in _PICTURES else one["type"],
        many=bool(lists) and max_items != 1,
        meaning=declared.get("description", ""),
        required=name in needed,
        minimum=one.get("minimum"),
        maximum=one.get("maximum"),
        exclusive_minimum=one.get("exclusiveMinimum"),
        exclusive_maximum=one.get("exclusiveMaximum"),
        max_items=max_items if max_items != 1 else None,
        default=declared.get("default"),
        choices=tuple(one["enum"]) if "enum" in one else None,
        parts=_describe_parts(one, schema),
    )


def _describe_parts(one: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[FieldDescription, ...] | None:
    if "properties" not in one:
        return None
    needed = one.get("required", ())
    return tuple(_describe(name, part, schema, needed) for name, part in one["properties"].items())
