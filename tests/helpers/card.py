"""The GPU as other processes leave it to this one, and what this one takes of it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

DEVICE = torch.device("cuda", 0)


@contextmanager
def filled(leaving: int, device: torch.device = DEVICE) -> Iterator[Callable[[], None]]:
    """Leave so many bytes of the card free; until the end, or until what comes is called."""
    gc.collect()
    torch.cuda.empty_cache()
    filler = [torch.empty(torch.cuda.mem_get_info(device)[0] - leaving, dtype=torch.uint8, device=device)]
    torch.cuda.reset_peak_memory_stats(device)

    def free() -> None:
        filler.clear()
        torch.cuda.empty_cache()

    try:
        yield free
    finally:
        free()


def held() -> int:
    """Bytes of all tensors on the card."""
    gc.collect()
    return torch.cuda.memory_allocated()


def needed(work: Callable[[], object]) -> int:
    """Bytes that the work takes from the card at most, beyond what is taken already."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    work()
    return torch.cuda.max_memory_reserved() - before
