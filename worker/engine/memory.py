"""Putting a memory plan into effect: what the weights of pipelines take, and where they go.

What is chosen, and why, is in memory_plan.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from diffusers import AutoencoderKL
from diffusers.hooks import HookRegistry, apply_group_offloading
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from worker.engine.bring import bring
from worker.engine.decoder import decode_by_tiles
from worker.engine.memory_plan import GraphNeeds, MemoryPlan, Offload, Quantize, choose_memory_plan
from worker.engine.pipelines import modules
from worker.engine.spread import choose_places, send
from worker.models.capabilities import Capabilities

# Class -> the layer whose weights it reads without calling it: GLM-Image's language model, where it looks at a picture.
_READ_UNCALLED = {"GlmImageVisionEmbeddings": "position_embedding", "GlmImageVQVAEVectorQuantizer": "embedding"}


def weight_sizes(
    pipelines: Sequence[Any], controlnets: Sequence[Any] = (), device: torch.device | None = None
) -> dict[str, int]:
    """Bytes of each component's weights; one that pipelines share counts once.

    Args:
        controlnets: work hand in hand with the denoiser, and count as part of it.
        device: count only what is there.
    """
    modules = {id(part): (name, part) for pipeline in pipelines for name, part in pipeline.components.items()}
    sizes: dict[str, int] = {}
    for name, part in modules.values():
        if isinstance(part, torch.nn.Module):
            sizes[name if name not in sizes else f"refiner {name}"] = _bytes(part, device)
    denoiser = next((name for name in ("unet", "transformer") if name in sizes), None)
    if denoiser is not None:
        sizes[denoiser] += sum(_bytes(controlnet, device) for controlnet in controlnets)
    return sizes


def _bytes(module: torch.nn.Module, device: torch.device | None) -> int:
    return sum(_weight_bytes(weight) for weight in module.parameters() if device in (None, weight.device))


def _weight_bytes(weight: Any) -> int:
    """Of a weight and, where it is quantised, of its scales: bitsandbytes hangs them on it, torchao's holds both."""
    if is_traceable_wrapper_subclass(weight):
        return sum(_weight_bytes(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    scales = (getattr(weight, "SCB", None), getattr(getattr(weight, "quant_state", None), "absmax", None))
    return sum(part.numel() * part.element_size() for part in (weight, *scales) if part is not None)


def place_weights(
    pipelines: Sequence[Any], controlnets: Sequence[Any], plan: MemoryPlan, devices: Sequence[torch.device]
) -> Callable[[], None]:
    """Put the weights where the plan says.

    Returns:
        to be called after each job: sends back what waits in main memory between jobs.
    """
    device = devices[0]
    for pipeline in pipelines:
        if plan.tiling:
            decode_by_tiles(getattr(pipeline, "vae", None))
        if plan.places:
            for name, part in modules(pipeline).items():
                send(part, devices[plan.places.get(name, 0)], device)
        elif plan.offload == "none":
            bring(modules(pipeline).values(), device)
            pipeline.to(device)
        elif plan.offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
    if plan.offload == "group":
        _stream(pipelines, device)
    hooks = []
    for controlnet in controlnets:
        if plan.offload == "none" or (plan.offload == "group" and not _can_travel("controlnet", controlnet)):
            bring([controlnet], device)
            controlnet.to(device)
        elif plan.offload == "model":
            hooks.append(cpu_offload_with_hook(controlnet, device)[1])
        else:
            controlnet.enable_group_offload(device, offload_type="leaf_level", use_stream=True)

    def release() -> None:
        for part in pipelines:
            part.maybe_free_model_hooks()
        for hook in hooks:
            hook.offload()

    return release


def _stream(pipelines: Sequence[Any], device: torch.device) -> None:
    """Let every module that these pipelines have, shared or not, wait in main memory, and travel layer by layer."""
    parts = {id(part): (name, part) for pipeline in pipelines for name, part in modules(pipeline).items()}
    for name, part in parts.values():
        if _can_travel(name, part):
            apply_group_offloading(part, device, offload_type="leaf_level", use_stream=True)
            _keep_uncalled(part, device)
        else:
            part.to(device)


def _keep_uncalled(part: torch.nn.Module, device: torch.device) -> None:
    """Leave on the device the small layers whose weights others read without calling them, which would bring them."""
    for owner in part.modules():
        if (name := _READ_UNCALLED.get(type(owner).__name__)) is not None:
            layer = getattr(owner, name)
            HookRegistry.check_if_exists_or_initialize(layer).remove_hook("group_offloading")
            layer.to(device)


def _can_travel(name: str, part: torch.nn.Module) -> bool:
    """Whether its layers may come one by one. Not where a pipeline casts them in place, as Stable Diffusion XL's do
    with the VAE, where diffusers says so, or where torch reads the weights of a layer without calling it."""
    whole = any(isinstance(layer, torch.nn.MultiheadAttention) for layer in part.modules())
    return name != "vae" and not whole and bool(getattr(part, "_supports_group_offloading", True))


def free_memory(device: torch.device) -> int:
    """Bytes of its memory that are free now."""
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def find_graph_needs(pipeline: Any) -> GraphNeeds:
    """What graphs of this pipeline's passes take; see `DecoderRunner`, which keeps a decoder that is cast twice."""
    vae: Any = getattr(pipeline, "vae", None)
    if type(vae) is not AutoencoderKL:
        return GraphNeeds(decoder=False)
    is_cast = hasattr(pipeline, "upcast_vae") and vae.dtype == torch.float16 and vae.config.force_upcast
    weights = sum(weight.numel() for weight in vae.decoder.parameters())
    return GraphNeeds(copies=weights * 6 if is_cast else 0)  # in float32, and in bfloat16 for compiled passes


def plan_memory(
    model: Capabilities,
    pipelines: Sequence[Any],
    controlnets: Sequence[Any],
    wanted: Offload | None,
    devices: Sequence[torch.device],
    quantize: Quantize = "none",
    accelerated: bool = False,
) -> MemoryPlan:
    """The plan for these pipelines on these devices; on a CPU there is nothing to plan.

    Args:
        devices: the first draws; more than one only for what is larger than one.
        accelerated: whether passes shall become graphs.
    """
    home, (pixels, seen) = devices[0], count_pixels(model)
    if home.type == "cpu":
        return MemoryPlan("none", False, "all in main memory")
    sizes = weight_sizes(pipelines, controlnets)
    free, *others = [find_room(device, pipelines, controlnets) for device in devices]
    graphs = find_graph_needs(pipelines[0]) if accelerated else None
    places = choose_places(sizes, pixels, [free, *others], seen) if others else None
    if places is None:  # or what came since they were grouped, an image encoder, is too much for them
        return choose_memory_plan(sizes, pixels, free, wanted, quantize, graphs, seen)
    at_home = {name: size for name, size in sizes.items() if places[name] == 0}
    decodes = places.get("vae") == 0 or "vae" not in places
    graphs = graphs and replace(graphs, decoder=graphs.decoder and decodes)
    plan = choose_memory_plan(at_home, pixels, free, "none", quantize, graphs, seen, decodes)
    away = ", ".join(f"{name} on {devices[place]}" for name, place in places.items() if place)
    return replace(plan, places=places, reason=f"larger than one GPU, so {away}; {plan.reason}")


def count_pixels(model: Capabilities) -> tuple[int, int]:
    """Of what is drawn, and of what is looked at beside it in an ordinary job."""
    pixels, editing = model.width * model.height, model.editing
    return pixels, editing.count_seen(pixels) if editing else 0


def find_room(device: torch.device, pipelines: Sequence[Any], controlnets: Sequence[Any]) -> int:
    """Bytes for weights and work: what is free, and what these have there already, as quantised ones are made there."""
    return free_memory(device) + sum(weight_sizes(pipelines, controlnets, device).values())
