"""Weights from main memory onto a GPU: by several threads at once, through memory that the GPU reads by itself.

A plain copy has one thread touch every page of a file that the system has read, and the GPU waits for it.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor, nn

log = logging.getLogger("worker")

WORTH = 256 << 20  # bytes; less is there before the threads are
THREADS = 4
CHUNK = 16 << 20  # bytes; each thread fills one while the other travels

Chunk = tuple[Tensor, Tensor]  # bytes in main memory, and where they go


class Lane(Protocol):
    """What a thread brings chunks by."""

    def carry(self, chunks: Iterable[Chunk]) -> None:
        """Bring these; they are there when it returns."""


class CudaLane:
    """Two buffers in pinned memory, and a queue of the GPU's."""

    def __init__(self, device: torch.device) -> None:
        """Take the buffers. Raises RuntimeError where the system has none to give."""
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = [torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._gone = [torch.cuda.Event() for _ in self._buffers]  # type: ignore[no-untyped-call]

    def carry(self, chunks: Iterable[Chunk]) -> None:
        """As `Lane`."""
        with torch.cuda.stream(self._stream):
            for number, (source, target) in enumerate(chunks):
                buffer, gone = self._buffers[number % 2], self._gone[number % 2]
                gone.synchronize()
                held = buffer[: len(source)]
                held.numpy()[:] = source.numpy()  # one thread's work, where torch would start some of its own
                target.copy_(held, non_blocking=True)
                gone.record(self._stream)
        self._stream.synchronize()


def bring(parts: Iterable[nn.Module], device: torch.device) -> None:
    """Have the weights of these on the device, as far as they are plain numbers in main memory.

    What is left, such as what is quantised, goes with `.to`; so does all that is small, and where no memory can be
    pinned.
    """
    weights = list({id(weight): weight for part in parts for weight in _list_plain(part)}.values())
    if device.type != "cuda" or sum(weight.nbytes for weight in weights) < WORTH:
        return
    try:
        lanes = [CudaLane(device) for _ in range(THREADS)]
    except RuntimeError as error:
        log.info("weights are copied one by one: %s", str(error).partition("\n")[0])
        return
    there = [torch.empty_like(weight, device=device) for weight in weights]
    torch.cuda.synchronize(device)  # what had that memory before is done with it
    carry(weights, there, lanes)
    for weight, brought in zip(weights, there, strict=True):
        weight.data = brought


def carry(weights: Sequence[Tensor], there: Sequence[Tensor], lanes: Sequence[Lane]) -> None:
    """Copy each of these to the other of its place, a thread for each lane."""
    chunks = [chunk for pair in zip(weights, there, strict=True) for chunk in _cut(*pair)]
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="bring") as threads:
        carried = [threads.submit(lane.carry, chunks[number :: len(lanes)]) for number, lane in enumerate(lanes)]
    for one in carried:
        one.result()


def _list_plain(part: nn.Module) -> Iterator[Tensor]:
    for weight in (*part.parameters(), *part.buffers()):
        plain = type(weight) in (Tensor, nn.Parameter, nn.Buffer) and weight.layout is torch.strided
        if plain and weight.device.type == "cpu" and weight.is_contiguous() and weight.numel():
            yield weight


def _cut(weight: Tensor, target: Tensor) -> Iterator[Chunk]:
    source, goal = (one.detach().view(-1).view(torch.uint8) for one in (weight, target))
    yield from zip(torch.split(source, CHUNK), torch.split(goal, CHUNK), strict=True)
