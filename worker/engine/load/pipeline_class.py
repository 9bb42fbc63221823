"""The class that a model names -> a pipeline of diffusers that draws pictures from a prompt, or a refusal by its name.

AutoPipelineForText2Image knows a table of classes, and which of a family's draws from a prompt. Every other class of
diffusers is taken as it is. Nothing but diffusers' own classes is ever looked at, whatever a model names.
"""

import inspect
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import diffusers
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING, _get_task_class

from worker.errors import ModelError
from worker.models.editing import EDITORS

_DENOISERS = {"unet", "transformer"}
_PICTURES = {"images", "image"}  # as pipelines call what they draw, and what they edit
# Outside the table, a class whose call takes a picture needs one, but for these, which draw without it too.
_READ_BY_CLASS = {*EDITORS, "FluxFillPipeline"}  # whatever the table would make of them
_DRAWS_ALONE = {"BriaFibo2Pipeline", "DreamLiteMobilePipeline", "DreamLitePipeline", "Flux2KleinKVPipeline"}


def find_class(name: str, model: str) -> type:
    """The pipeline of diffusers that goes by this name, as a model's index says it.

    Args:
        model: whose index it is, for the message.

    Raises:
        ModelError: there is none, or it draws no picture from a prompt.
    """
    kind = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
    if not (isinstance(kind, type) and issubclass(kind, DiffusionPipeline)):
        raise ModelError(f"{model} cannot be loaded as a model: got {name}; diffusers has no pipeline of that name")
    if reason := _find_other_use(kind):
        raise ModelError(f"{model} is a {name}, which {reason}; this worker draws pictures from prompts")
    return kind


def choose_reader(kind: type) -> Any:
    """What reads such a model: the table where it has the class, else the class itself."""
    return AutoPipelineForText2Image if _is_in_table(kind) else kind


def _is_in_table(kind: type) -> bool:
    if kind.__name__ in _READ_BY_CLASS:
        return False
    known = _get_task_class(AUTO_TEXT2IMAGE_PIPELINES_MAPPING, kind.__name__, throw_error_if_not_exist=False)
    return known is not None


def _find_other_use(kind: type) -> str | None:
    """What such a pipeline does instead of drawing pictures from prompts; None if it does that."""
    arguments, answers = _read_call(kind)
    returned = {field.name for answer in answers for field in fields(answer)}
    if any("frame" in name or "video" in name for name in arguments) or "frames" in returned:
        return "makes videos"
    if any("audio" in name for name in (*arguments, *returned)):
        return "makes sound"
    if "prompt" not in arguments:
        return "takes no prompt"
    if answers and not returned & _PICTURES:
        return "returns no pictures"
    if not _DENOISERS & inspect.signature(kind).parameters.keys():
        return "has neither a unet nor a transformer"
    if more := _list_needs(kind):
        return f"needs more than a prompt: {', '.join(more)}"
    if needs_a_picture(kind) and kind.__name__ not in _READ_BY_CLASS:
        return "cannot draw from a prompt alone; it needs a picture too"
    return None


def needs_a_picture(kind: type) -> bool:
    """Whether its prompt says what to do with a picture."""
    if _is_in_table(kind) or kind.__name__ in _DRAWS_ALONE:
        return False
    return bool(_PICTURES & {*_read_call(kind)[0]})


def _list_needs(kind: type) -> list[str]:
    """The arguments that must be given, beside the prompt and what it edits; none of those in the table."""
    if _is_in_table(kind):
        return []
    given = {"self", "prompt"} | (_PICTURES if kind.__name__ in EDITORS else set())
    needed = (one for one in inspect.signature(kind.__call__).parameters.values() if one.default is one.empty)
    return [one.name for one in needed if one.kind is not one.VAR_KEYWORD and one.name not in given]


def _read_call(kind: type) -> tuple[Sequence[str], list[type]]:
    """The arguments of its call, and the classes of what that returns, as far as it says them."""
    call = kind.__call__
    try:
        signature = inspect.signature(call, eval_str=True)
    except (NameError, TypeError):  # what only type checkers read
        signature = inspect.signature(call)
    answers = get_args(signature.return_annotation) or (signature.return_annotation,)
    return [*signature.parameters], [one for one in answers if isinstance(one, type) and is_dataclass(one)]
