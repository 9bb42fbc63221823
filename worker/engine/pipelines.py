"""What a pipeline's model can be asked to do, and the diffusers pipelines that do it with the modules already loaded.

Everything is read from diffusers' names and signatures, so it holds for families that no code here names.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    MultiControlNetModel,
    QwenImageControlNetModel,
    QwenImageMultiControlNetModel,
)
from diffusers.models import MultiControlNetUnionModel
from transformers import CLIPTextModel, ProcessorMixin

from worker.engine.decoder import convert_on_device
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT
from worker.models.editing import EDITORS

Arguments = Mapping[str, object]

# How diffusers names the pipelines of one family: FluxPipeline, FluxImg2ImgPipeline, FluxControlNetInpaintPipeline.
_NAMES = {TEXT: "", IMAGE: "Img2Img", MASK: "Inpaint"}
# A pipeline under the name of a task takes these, or it is something else: a control picture, for example.
_MARKS = {TEXT: {"prompt"}, IMAGE: {"image", "strength"}, MASK: {"image", "mask_image", "strength"}}


# Fails at every call in diffusers 0.42: it reads a config entry that its own transformer has not.
_BROKEN = {"ChromaInpaintPipeline"}


def call_arguments(kind: type, method: str = "__call__") -> Arguments:
    """The parameters of a pipeline's call, or of another of its methods, and their defaults."""
    return _arguments(getattr(kind, method))


@cache
def _arguments(function: Callable[..., Any]) -> Arguments:
    parameters = inspect.signature(function).parameters
    return MappingProxyType({name: parameter.default for name, parameter in parameters.items()})


def needs_a_prior(kind: str) -> bool:
    """Whether a pipeline of this name turns into pictures what another one, in a repository of its own, has made."""
    family = kind.removesuffix("Pipeline").removesuffix("Combined").removesuffix("Decoder")
    return hasattr(diffusers, f"{family}CombinedPipeline")


def _parts(kind: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters


def task_classes(kind: type) -> dict[str, type]:
    """Every task that the family of this pipeline, the one that is loaded, has a pipeline for -> that pipeline."""
    found: dict[str, type] = {TEXT: kind} if draws_from_prompt(kind) else {}
    if kind.__name__ in EDITORS:
        found[EDIT] = kind
    if fills(kind):
        found[MASK] = kind
    if follows(kind):
        found[TEXT + CONTROLLED] = kind
    family = kind.__name__.removesuffix("Pipeline")
    for task, name in _NAMES.items():
        plain = getattr(diffusers, f"{family}{name}Pipeline", None)
        if plain is not None and plain.__name__ != kind.__name__ and _fits(plain, task, kind):
            found[task + CONTROLLED if follows(plain) else task] = plain
        controlled = getattr(diffusers, f"{family}ControlNet{name}Pipeline", None)
        if controlled is not None and _fits(controlled, task, kind) and "controlnet" in _parts(controlled):
            found[task + CONTROLLED] = controlled
    inpainting = _find_inpainting_class(family)
    if inpainting is not None:
        found.setdefault(MASK + CONTROLLED, inpainting)
    return found


def draws_from_prompt(kind: type) -> bool:
    """Whether pipelines of this class draw from a prompt alone."""
    editing = EDITORS.get(kind.__name__)
    from_prompt = editing is None or editing.from_prompt
    return "prompt" in call_arguments(kind) and from_prompt and not (fills(kind) or follows(kind))


def fills(kind: type) -> bool:
    """Whether pipelines of this class draw what a mask covers."""
    return _MARKS[MASK] <= call_arguments(kind).keys()


def follows(kind: type) -> bool:
    """Whether pipelines of this class follow a picture by their own weights, without a ControlNet."""
    return "control_image" in call_arguments(kind) and "controlnet" not in _parts(kind)


def starts_from_pictures(kind: type) -> bool:
    """Whether pipelines of this class are made to draw from pictures; some of them draw from a prompt, too."""
    return kind.__name__ in EDITORS or fills(kind) or follows(kind)


def _find_inpainting_class(family: str) -> type | None:
    """The pipeline that draws what is masked through a ControlNet for inpainting, with no picture to start from."""
    names = (f"{family}ControlNet{name}Pipeline" for name in ("Inpaint", "Inpainting"))
    found = (getattr(diffusers, name, None) for name in names)
    return next((one for one in found if one and {"control_image", "control_mask"} <= call_arguments(one).keys()), None)


def union_class(controlled: type) -> type | None:
    """The pipeline that does the same as this one with union ControlNets, where the family has one of its own."""
    found: type | None = getattr(diffusers, controlled.__name__.replace("ControlNet", "ControlNetUnion"), None)
    return found


def control_class(kind: type, task: str, controlnets: Sequence[Any]) -> type:
    """The pipeline for this task with these ControlNets."""
    plain = task_classes(kind)[task]
    union = union_class(plain) if isinstance(controlnets[0], ControlNetUnionModel) else None
    return union or plain


def _fits(candidate: type, task: str, kind: type) -> bool:
    """Whether this pipeline does the task, with no module that the text-to-image pipeline has not."""
    if candidate.__name__ in _BROKEN:
        return False
    needed = {name for name, part in _parts(candidate).items() if part.default is inspect.Parameter.empty}
    return _MARKS[task] <= call_arguments(candidate).keys() and needed <= {*_parts(kind), "controlnet"}


def reads_clip(kind: type) -> bool:
    """Whether a UNet attends to the hidden states of CLIP's text encoder, which can then be weighted and joined."""
    parts, arguments = _parts(kind), call_arguments(kind)
    encoder = parts.get("text_encoder")
    return (
        "unet" in parts and "prompt_embeds" in arguments and encoder is not None and encoder.annotation is CLIPTextModel
    )


def turn_to_inpainting(pipeline: Any) -> Any:
    """The pipeline that inpaints, where the UNet was trained for that and looks at a mask; else this one.

    Beside the latents such a UNet takes the mask and the latents of what it leaves, so 9 channels instead of 4.
    """
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if unet is None or vae is None or unet.config.get("in_channels") != 2 * vae.config.get("latent_channels", 0) + 1:
        return pipeline
    kind = task_classes(type(pipeline)).get(MASK)
    return build_pipeline(pipeline, kind) if kind else pipeline


def build_pipeline(pipeline: Any, kind: type, safety_checker: bool = True, **extra: Any) -> Any:
    """A pipeline of this class around the same modules; nothing is copied, cast or moved.

    Args:
        pipeline: the loaded text-to-image pipeline.
        safety_checker: False for a pass whose picture is not the last.
        extra: further modules, such as `controlnet`.
    """
    known = {**dict(pipeline.config), **pipeline.components, **extra}
    if not safety_checker:
        known |= {"safety_checker": None, "requires_safety_checker": False}
    parts = _parts(kind)
    built = kind(**{name: known[name] for name in parts if name in known})
    built.set_progress_bar_config(disable=True)
    convert_on_device(built)
    if (device := vars(type(pipeline)).get("_execution_device")) is not None:
        stay_on(built, device)
    return built


def stay_on(pipeline: Any, device: torch.device) -> None:
    """Tell a pipeline whose weights stay where it computes, which it would look for in all modules at every call.

    The device waits for that: 15 ms with SDXL's.
    """
    kind = type(pipeline)
    pipeline.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, "_execution_device": device})


def combine_controlnets(controlnets: list[Any]) -> Any:
    """What the ControlNet pipelines take for several at once."""
    first = controlnets[0]
    only = all(one is first for one in controlnets)
    if len(controlnets) == 1 or (only and isinstance(first, ControlNetUnionModel)):
        return first
    if isinstance(first, ControlNetUnionModel):
        return MultiControlNetUnionModel(controlnets)
    if only and isinstance(first, QwenImageControlNetModel):  # of which several are one, with several pictures
        return QwenImageMultiControlNetModel([first])
    # Families with a class of their own for several take a list and make it themselves.
    return MultiControlNetModel(controlnets) if isinstance(first, ControlNetModel) else controlnets


def modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's components that hold weights."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def can_preview(pipeline: Any) -> bool:
    """Whether the latents are a picture of their own, and the decoder's counterpart is there to learn from."""
    vae = getattr(pipeline, "vae", None)
    plain = not _packs(pipeline) or hasattr(pipeline, "_unpack_latents")
    return type(vae).__name__ == "AutoencoderKL" and plain and not uses_edm_noise(pipeline)


def uses_edm_noise(pipeline: Any) -> bool:
    """Whether the model was trained on the noise of arXiv:2206.00364, which other schedulers do not know."""
    return type(pipeline.scheduler).__name__.startswith("EDM")


def _packs(pipeline: Any) -> bool:
    return hasattr(type(pipeline), "_pack_latents")


def text_tokenizer(part: Any) -> Any:
    """A tokenizer, which some pipelines have as part of a processor that hands pictures over, too."""
    return getattr(part, "tokenizer", None) if isinstance(part, ProcessorMixin) else part


def find_denoiser(pipeline: Any) -> Any:
    """The pipeline's UNet or transformer."""
    return getattr(pipeline, "unet", None) or pipeline.transformer
