"""What makes an engine draw faster, chosen once with its reason: passes by graphs or compiled, pictures at once."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from worker.engine.batch_size import BatchSize
from worker.engine.denoiser.cuda_graphs import CudaDevice
from worker.engine.denoiser.graphs import Compiler, Graphs
from worker.engine.denoiser.projections import place_projections_together
from worker.engine.denoiser.runner import DecoderRunner, PassRunner
from worker.engine.memory_plan import MemoryPlan
from worker.models.capabilities import Capabilities
from worker.settings import VOLUME, Settings

log = logging.getLogger("worker")


def run_others(pipeline: Any, controlnets: Mapping[str, Any]) -> list[PassRunner]:
    """The runners of what works beside the denoisers."""
    vae = getattr(pipeline, "vae", None)
    decoders = [DecoderRunner(vae)] if type(vae) is AutoencoderKL else []
    return [*decoders, *(PassRunner(f"ControlNet {name}", net) for name, net in controlnets.items())]


def wants_graphs(settings: Settings) -> bool:
    """Whether passes shall become graphs where there is room for them; none reads weights that are unpacked first."""
    return settings.acceleration != "off" and settings.quantize == "none" and not settings.may_be_packed


def choose_graphs(
    settings: Settings, plan: MemoryPlan, device: torch.device, open_compiler: Callable[[], Compiler]
) -> Graphs | None:
    """Where graphs of passes are kept; None where every pass runs as it is written.

    Args:
        open_compiler: gives the one of this process.
    """
    if settings.acceleration == "off":
        return None
    if device.type != "cuda":
        if settings.acceleration != "auto":
            log.info("acceleration off: graphs are for CUDA devices")
        return None
    if plan.offload != "none" or settings.quantize != "none" or settings.may_be_packed:
        log.info("acceleration off: weights that travel, or are unpacked at every pass, can be in no graph")
        return None
    if plan.graphs == "none":
        log.info("acceleration off: no memory for graphs beside the weights")
        return None
    reason = "a graph where it is faster" if settings.acceleration == "auto" else "ACCELERATION says so"
    log.info("acceleration by graphs: %s", reason)
    if settings.acceleration != "compile":
        return Graphs(CudaDevice(device), measure=settings.acceleration == "auto")
    return Graphs(CudaDevice(device), measure=False, compiler=open_compiler())


def make_compiler(settings: Settings, device: torch.device) -> Compiler:
    """What compiles for all engines: torch keeps much of a compile in globals, so that there is one in a process."""
    from worker.engine.denoiser.compiled import TorchCompiler  # with it comes torch's compiler

    cache = choose_cache(settings, device)
    log.info("compiled between jobs; what was compiled is kept in %s", cache or "no place that lasts")
    return TorchCompiler(cache)


def lay_out(graphs: Graphs | None, modules: Iterable[torch.nn.Module]) -> None:
    """Weights as compiled passes read them: those of convolutions would else be turned around in every pass."""
    if graphs is None or not graphs.compiles:
        return
    for module in modules:
        place_projections_together(module)
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):  # a module as a whole may have others, which cannot be laid out so
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def choose_cache(settings: Settings, device: torch.device) -> Path | None:
    """The folder for what is compiled by these versions for this device; None where nothing can be kept."""
    root = settings.compile_cache
    if root is None and VOLUME.is_dir():
        root = VOLUME / "compiled"
    if root is None:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device).replace(" ", "-")
    folder = root / f"{name}-sm{major}{minor}-torch-{torch.__version__}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("what is compiled is not kept: %s: %s", folder, error.strerror)
        return None
    return folder if os.access(folder, os.W_OK) else None


def choose_batch_size(pipeline: Any, model: Capabilities, settings: Settings, plan: MemoryPlan) -> BatchSize:
    """How many pictures are drawn at once."""
    # Stable Diffusion 3's ControlNets sample the pictures that they follow without any generator.
    joins_controls = "StableDiffusion3" not in type(pipeline).__name__
    alone = model.family.alone
    wanted = 1 if alone else settings.pictures_at_once
    batch_size = BatchSize(wanted, plan.room, model.family.batch_pixels, joins_controls)
    if plan.room:  # where there is something to choose
        why = f"one picture; {model.family.title} draws several at once otherwise than each alone"
        log.info("drawn at once: %s", why if alone else batch_size.explain(model.width, model.height))
    return batch_size
