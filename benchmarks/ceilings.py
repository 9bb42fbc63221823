"""What the device could do at best: the rate of a large matrix product, of a copy, and the work that drawing is."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contestants import Pipeline, choose_plain_dtype
from benchmarks.results import Floor

TRIES = 10


def measure_floor(plain: Pipeline, device: torch.device) -> Floor:
    """The floor of one job of this pipeline's scene."""
    dtype = choose_plain_dtype(plain.scene, device)
    return Floor(
        work_tflop=count_work(plain) / 1e12,
        matmul_tflops=measure_matmul(device, dtype) / 1e12,
        copy_tb_s=measure_copy(device) / 1e12,
        dtype=str(dtype).removeprefix("torch."),
    )


def count_work(plain: Pipeline) -> int:
    """Floating-point operations of one job, a multiplication and an addition counted as two.

    Counted of two and of three steps, of which all others are copies.
    """
    two, three = (_count(plain, steps) for steps in (2, 3))
    return two + (three - two) * (plain.scene.steps - 2)


def _count(plain: Pipeline, steps: int) -> int:
    with FlopCounterMode(display=False) as counter:
        plain.draw(0, steps)
    return int(counter.get_total_flops())


def measure_matmul(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of square matrices of random numbers."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _median_seconds(lambda: left @ right, device)


def measure_copy(device: torch.device) -> float:
    """Bytes per second of a large copy on the device, those read and those written."""
    source = torch.randn(1 << (28 if device.type == "cuda" else 24), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), device)


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        work()
    seconds = []
    for _ in range(TRIES):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
