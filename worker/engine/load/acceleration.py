"""What makes an engine draw faster, chosen once with its reason: graphs of the denoiser's passes, pictures at once."""

import logging
from typing import Any

import torch

from worker.engine.batch_size import BatchSize
from worker.engine.denoiser.graphs import CudaDevice, Graphs
from worker.engine.memory import MemoryPlan
from worker.models.capabilities import Capabilities
from worker.settings import Settings

log = logging.getLogger("worker")


def choose_graphs(settings: Settings, plan: MemoryPlan, device: torch.device) -> Graphs | None:
    """Where graphs of passes are kept; None where every pass runs as it is written."""
    if device.type != "cuda" or settings.acceleration == "off":
        return None
    if plan.offload != "none" or settings.quantize != "none":
        log.info("acceleration off: weights that travel, or are unpacked at every pass, can be in no graph")
        return None
    reason = "a graph where it is faster" if settings.acceleration == "auto" else "ACCELERATION says so"
    log.info("acceleration by graphs: %s", reason)
    return Graphs(CudaDevice(device), measure=settings.acceleration == "auto")


def choose_batch_size(pipeline: Any, model: Capabilities, settings: Settings, plan: MemoryPlan) -> BatchSize:
    """How many pictures are drawn at once."""
    # Stable Diffusion 3's ControlNets sample the pictures that they follow without any generator.
    joins_controls = "StableDiffusion3" not in type(pipeline).__name__
    batch_size = BatchSize(settings.pictures_at_once, plan.room, model.family.batch_pixels, joins_controls)
    log.info("drawn at once: %s", batch_size.explain(model.width, model.height))
    return batch_size
