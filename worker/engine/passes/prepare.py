"""What each task hands to its pipeline beside the prompts: a pass and what came before it -> arguments of the call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor

from worker.engine.adapters.holes import show_hole
from worker.engine.passes.run import PassResult
from worker.engine.pipelines import call_arguments
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT
from worker.models.editing import EDITORS
from worker.plan import Pass
from worker.request import InitImage, Request

CallArguments = dict[str, Any]
LAYER_SIDES = 640, 1024  # of a square, in pixels


def prepare(one: Pass, requests: Sequence[Request], before: PassResult | None, pipeline: Any) -> CallArguments:
    """The arguments of this pass.

    Args:
        requests: one for each picture of the batch.
        before: of the pass before this one; None for the first.
        pipeline: that runs it.
    """
    arguments: CallArguments = {"num_inference_steps": one.num_inference_steps, "strength": one.strength}
    if one.returns_latents:
        arguments["output_type"] = "latent"
    if before is not None:
        return arguments | (
            _prepare_refine(one, before) if one.kind == "refine" else _prepare_enlarge(one, before, pipeline)
        )
    arguments |= {"width": one.width, "height": one.height, "denoising_end": one.end}
    arguments["max_area"] = one.width * one.height  # FLUX Kontext draws as many pixels, whatever the size
    arguments |= PREPARE[one.task.removesuffix(CONTROLLED)](requests)
    editing = EDITORS.get(type(pipeline).__name__)
    if one.task == EDIT and editing is not None and editing.listed:
        arguments |= {word: list(requests[0].references) for word in ("image", "images")}  # whichever it takes
    return arguments | (_prepare_control(requests, pipeline) if requests[0].controls else {})


def _prepare_text(_: Sequence[Request]) -> CallArguments:
    return {}


def _prepare_image(requests: Sequence[Request]) -> CallArguments:
    return {"image": _batch([source.image for source in _list_sources(requests)])}


def _prepare_mask(requests: Sequence[Request]) -> CallArguments:
    masks = {"mask_image": _batch([source.mask for source in _list_sources(requests)])}
    references = [request.references[0] for request in requests if request.references]
    if references:
        masks["image_reference"] = _batch(references)
    # FLUX.1 Kontext would draw in one of the sizes that it was trained on, and the rest of the picture be stretched.
    return _prepare_image(requests) | masks | {"_auto_resize": False}


def _prepare_edit(requests: Sequence[Request]) -> CallArguments:
    first = requests[0]
    return {"image": _batch(first.references)} if first.layers is None else _prepare_layers(first, first.layers)


def _prepare_layers(request: Request, layers: int) -> CallArguments:
    """Of a picture that is split: its pipeline draws in one of two sizes, of which the nearer is taken."""
    small, large = LAYER_SIDES
    resolution = small if request.width * request.height <= small * large else large
    image = request.references[0].convert("RGBA")
    return {"image": image, "layers": layers, "resolution": resolution, "use_en_prompt": True}


def _list_sources(requests: Sequence[Request]) -> list[InitImage]:
    return [request.init_image for request in requests if request.init_image]


def _batch(values: Sequence[Any]) -> Any:
    """As pipelines take them: one alone, or a list of several."""
    return list(values) if len(values) > 1 else values[0]


PREPARE: Mapping[str, Callable[[Sequence[Request]], CallArguments]] = {
    TEXT: _prepare_text,
    IMAGE: _prepare_image,
    MASK: _prepare_mask,
    EDIT: _prepare_edit,
}


def _prepare_control(requests: Sequence[Request], pipeline: Any) -> CallArguments:
    """What the batch's requests have in common, and each picture that is followed."""
    controls = requests[0].controls
    columns = zip(*((one.scale, one.start, one.end) for one in controls), strict=True)
    scales, starts, ends = (_batch(column) for column in columns)
    # Of several ControlNets each gets a list, and a single picture for each is none.
    net = getattr(pipeline, "controlnet", None)
    nets = getattr(net, "nets", None) or [net]  # one may be there for all
    images = _batch(
        [
            _batch([show_hole(one.controls[i], nets[min(i, len(nets) - 1)]) for one in requests])
            for i in range(len(controls))
        ]
    )
    # Where there is no other picture, some pipelines call the one to follow just `image`.
    name = "control_image" if "control_image" in call_arguments(type(pipeline)) else "image"
    return {
        name: images,
        "controlnet_conditioning_scale": scales,
        "control_guidance_start": starts,
        "control_guidance_end": ends,
        "control_mode": _batch([one.mode for one in controls]),
        "control_mask": _batch([request.controls[0].hole for request in requests]),
    }


def _prepare_enlarge(one: Pass, before: PassResult, pipeline: Any) -> CallArguments:
    """Hires' second pass, over the first one's pictures or latents made larger."""
    size = {"width": one.width, "height": one.height}
    if before.latents is None:
        return size | {"image": [image.resize((one.width, one.height), Resampling.LANCZOS) for image in before.images]}
    scale = pipeline.vae_scale_factor
    return size | {"image": _enlarge_latents(before.latents, one.height // scale, one.width // scale)}


def _enlarge_latents(latents: Tensor, rows: int, columns: int) -> Tensor:
    """(pictures, channels, rows, columns), enlarged in float32: CPUs enlarge no half precision."""
    larger = torch.nn.functional.interpolate(latents.float(), size=(rows, columns), mode="bicubic", antialias=True)
    return larger.to(latents.dtype)


def _prepare_refine(one: Pass, before: PassResult) -> CallArguments:
    """SDXL's refiner: over finished pictures, or over the latents at the share of the schedule where it takes over."""
    return {"image": before.images if before.latents is None else before.latents, "denoising_start": one.start}
