"""Which devices draw together, and which do not draw at all: as many engines as there is memory for, all alike.

The pictures of a job are divided evenly, so that one engine whose weights travel would keep all others waiting.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from worker.engine.memory import count_pixels, find_room, weight_sizes
from worker.engine.memory_plan import Offload, Quantize, choose_memory_plan
from worker.engine.spread import choose_places
from worker.main_memory import find_free_main_memory
from worker.models.capabilities import Capabilities

log = logging.getLogger("worker")

Group = Sequence[torch.device]
# What is copied to a device while it computes is kept from being moved, in blocks of powers of two.
_TIMES = {"none": 0, "model": 1, "group": 2}


def group_devices(
    model: Capabilities,
    pipelines: Sequence[Any],
    controlnets: Sequence[Any],
    wanted: Offload | None,
    devices: Group,
    quantize: Quantize = "none",
) -> list[Group]:
    """The devices of each engine: as few as keep the whole model; one each where none do, or the owner wants it so.

    What bitsandbytes packs stays on the device where it was made.
    """
    alone: list[Group] = [[device] for device in devices]
    if wanted is not None or len(devices) == 1 or devices[0].type != "cuda" or quantize in ("4bit", "8bit"):
        return alone
    sizes, pixels = weight_sizes(pipelines, controlnets), count_pixels(model)
    free = [find_room(device, pipelines, controlnets) for device in devices]
    found: list[Group] = [
        [devices[number] for number in group] for group in _find_groups(sizes, pixels, free, quantize)
    ]
    used = [device for group in found for device in group]
    if found and len(used) < len(devices):
        idle = ", ".join(str(device) for device in devices if device not in used)
        log.warning("%s draws nothing: without others it cannot keep the model, which the rest keeps whole", idle)
    return found or alone


def _find_groups(
    sizes: Mapping[str, int], pixels: tuple[int, int], free: Sequence[int], quantize: Quantize
) -> Iterator[Sequence[int]]:
    """Neighbours that keep the model together, as few as do, by their numbers."""
    left = list(range(len(free)))
    while left:
        groups = (left[:number] for number in range(1, len(left) + 1))
        found = next((one for one in groups if _keep(sizes, pixels, [free[number] for number in one], quantize)), None)
        if found:
            yield found
        left = left[len(found) if found else 1 :]


def _keep(sizes: Mapping[str, int], pixels: tuple[int, int], free: Sequence[int], quantize: Quantize) -> bool:
    drawn, seen = pixels
    if len(free) == 1:
        return choose_memory_plan(sizes, drawn, free[0], None, quantize, seen=seen).offload == "none"
    return choose_places(sizes, drawn, free, seen) is not None


def find_waiting(
    model: Capabilities,
    pipelines: Sequence[Any],
    controlnets: Sequence[Any],
    wanted: Offload | None,
    groups: Sequence[Group],
    quantize: Quantize = "none",
) -> int:
    """Bytes that the weights of one of these engines take in main memory, at most; 0 where devices keep them."""
    if groups[0][0].type != "cuda" or any(len(group) > 1 for group in groups):
        return 0
    sizes, (pixels, seen) = weight_sizes(pipelines, controlnets), count_pixels(model)
    free = [find_room(device, pipelines, controlnets) for (device,) in groups if wanted is None]
    choices = (choose_memory_plan(sizes, pixels, one, None, quantize, seen=seen) for one in free)
    plans = [wanted] if wanted else [one.offload for one in choices]
    return max(_TIMES[one] for one in plans) * sum(sizes.values())


def limit_to_main_memory(groups: Sequence[Group], waiting: int) -> Sequence[Group]:
    """As many of these as there is main memory for; one in any case.

    Args:
        waiting: bytes that each takes there. Those of the first are taken already.
    """
    free = find_free_main_memory()
    if not waiting or free is None or len(groups) <= (most := 1 + free // waiting):
        return groups
    log.warning(
        "%d of %d GPUs draw: what waits in main memory is there once for each, up to %.1f GB, of which %.1f are free",
        most,
        len(groups),
        waiting / 1e9,
        free / 1e9,
    )
    return groups[:most]
