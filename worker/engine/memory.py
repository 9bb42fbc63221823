"""How a pipeline fits into the device's memory: the plan, with its reason, and putting it into effect.

The plan is pure arithmetic on sizes, so it can be read and tested without a device.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from worker.engine.decoder import decode_by_tiles
from worker.engine.pipelines import modules
from worker.models.capabilities import Capabilities

Offload = Literal["none", "model", "group"]
Quantize = Literal["none", "8bit", "4bit", "fp8"]

# Working memory beyond the weights, in bytes for each pixel drawn: upper bounds of what was reserved on an H200 for
# full-size SDXL (9,270 undivided, in float32) and FLUX (4,820) at 1024x1024; SDXL by tiles in 8 GB stayed below.
DENOISE = 1_600
DECODE = 9_500
DECODE_TILED = 1_600
RESERVE = 300_000_000  # the CUDA context's workspaces and what the allocator cannot use


@dataclass(frozen=True)
class MemoryPlan:
    """Where weights stay between uses, and whether the VAE decodes by tiles.

    Attributes:
        offload: none, all on the device; model, one component at a time; group, layer by layer, streamed.
        room: bytes of device memory beside the weights that are there while the denoiser works.
    """

    offload: Offload
    tiling: bool
    reason: str
    room: int = 0


def choose_memory_plan(
    sizes: Mapping[str, int], pixels: int, free: int, wanted: Offload | None, quantize: Quantize = "none"
) -> MemoryPlan:
    """The fastest plan that fits.

    Args:
        sizes: bytes of each component's weights.
        pixels: of the native size.
        free: bytes of device memory before anything is placed there.
        wanted: the owner's choice; None to choose by memory.
        quantize: how the weights are kept; in 8 bits they cannot leave the device.
    """
    kept = wanted or ("none" if quantize == "8bit" else None)
    usable = free - RESERVE
    total = sum(sizes.values())
    others = max((size for name, size in sizes.items() if name != "vae"), default=0)
    vae = sizes.get("vae", 0)
    scales = total // 8 if quantize == "4bit" else 0  # one 32-bit scale for 64 weights; they wait on the device
    needs: list[tuple[Offload, bool, int]] = [
        ("none", False, total + pixels * max(DENOISE, DECODE)),
        ("none", True, total + pixels * max(DENOISE, DECODE_TILED)),
        ("model", False, max(others + pixels * DENOISE, vae + pixels * DECODE)),
        ("model", True, max(others + pixels * DENOISE, vae + pixels * DECODE_TILED)),
        ("group", False, scales + vae + pixels * max(DENOISE, DECODE)),
        ("group", True, 0),
    ]
    offload, tiling, need = next(
        plan for plan in needs if (kept in (None, plan[0])) and (plan[2] <= usable or plan[:2] == _last(kept))
    )
    how = {"none": "all on the device", "model": "one component at a time", "group": "layer by layer"}[offload]
    why = "OFFLOAD says so" if wanted else f"about {need / 1e9:.1f} GB needed of {free / 1e9:.1f} GB free"
    what = f"weights {total / 1e9:.1f} GB" + (f" with QUANTIZE={quantize}" if quantize != "none" else "")
    room = max(0, usable - {"none": total, "model": others, "group": scales + vae}[offload])
    return MemoryPlan(offload, tiling, f"{how}{', the VAE by tiles' if tiling else ''}: {why}; {what}", room)


def _last(wanted: Offload | None) -> tuple[Offload, bool]:
    """The plan that is taken when none is sure to fit."""
    return wanted or "group", True


def weight_sizes(
    pipelines: Sequence[Any], controlnets: Sequence[Any] = (), device: str | None = None
) -> dict[str, int]:
    """Bytes of each component's weights; one that pipelines share counts once.

    Args:
        controlnets: work hand in hand with the denoiser, and count as part of it.
        device: count only what is on a device of this type.
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


def _bytes(module: torch.nn.Module, device: str | None) -> int:
    return sum(_weight_bytes(weight) for weight in module.parameters() if device in (None, weight.device.type))


def _weight_bytes(weight: Any) -> int:
    """Of a weight and, where it is quantised, of its scales: bitsandbytes hangs them on it, torchao's holds both."""
    if is_traceable_wrapper_subclass(weight):
        return sum(_weight_bytes(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    scales = (getattr(weight, "SCB", None), getattr(getattr(weight, "quant_state", None), "absmax", None))
    return sum(part.numel() * part.element_size() for part in (weight, *scales) if part is not None)


def place_weights(
    pipelines: Sequence[Any], controlnets: Sequence[Any], plan: MemoryPlan, device: torch.device
) -> Callable[[], None]:
    """Put the weights where the plan says.

    Returns:
        to be called after each job: sends back what waits in main memory between jobs.
    """
    for pipeline in pipelines:
        if plan.tiling:
            decode_by_tiles(getattr(pipeline, "vae", None))
        if plan.offload == "none":
            pipeline.to(device)
        elif plan.offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
    if plan.offload == "group":
        _stream(pipelines, device)
    hooks = []
    for controlnet in controlnets:
        if plan.offload == "none" or (plan.offload == "group" and not _can_travel("controlnet", controlnet)):
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
        else:
            part.to(device)


def _can_travel(name: str, part: torch.nn.Module) -> bool:
    """Whether its layers may come one by one. Not where a pipeline casts them in place, as Stable Diffusion XL's do
    with the VAE, where diffusers says so, or where torch reads the weights of a layer without calling it."""
    whole = any(isinstance(layer, torch.nn.MultiheadAttention) for layer in part.modules())
    return name != "vae" and not whole and bool(getattr(part, "_supports_group_offloading", True))


def free_memory() -> int:
    """Bytes of device memory that are free now."""
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


def plan_memory(
    model: Capabilities,
    pipelines: Sequence[Any],
    controlnets: Sequence[Any],
    wanted: Offload | None,
    device: torch.device,
    quantize: Quantize = "none",
) -> MemoryPlan:
    """The plan for these pipelines on this device; on a CPU there is nothing to plan."""
    if device.type == "cpu":
        return MemoryPlan("none", False, "all in main memory")
    # Quantised weights are made on the device.
    already_there = sum(weight_sizes(pipelines, controlnets, device.type).values())
    sizes = weight_sizes(pipelines, controlnets)
    return choose_memory_plan(sizes, model.width * model.height, free_memory() + already_there, wanted, quantize)
