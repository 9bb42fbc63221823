"""Numbers in blocks of 256, as ggml packs them: rounded to the nearest step, without its search for the best steps.

The gguf package reads these formats and writes none of them. A block of Q4_K or Q5_K has eight parts, each with a scale
and a lowest number in six bits; one of Q6_K has sixteen, each with a scale in eight bits.
"""

from typing import Any

import numpy as np

Numbers = np.ndarray[Any, Any]
BLOCK = 256


def pack(values: Numbers, kind: str) -> Numbers:
    """The bytes of these rows, whose length is a multiple of 256.

    Args:
        kind: Q4_K, Q5_K or Q6_K.
    """
    blocks = np.asarray(values, np.float32).reshape(-1, BLOCK)
    packed = _pack_signed(blocks) if kind == "Q6_K" else _pack_with_lowest(blocks, {"Q4_K": 4, "Q5_K": 5}[kind])
    return packed.reshape(*values.shape[:-1], -1)


def _pack_with_lowest(blocks: Numbers, bits: int) -> Numbers:
    parts, largest = blocks.reshape(-1, 8, 32), 2**bits - 1
    lowest = np.maximum(0, -parts.min(axis=2))
    step, steps = _share((parts.max(axis=2) + lowest) / largest, 63)
    low, lows = _share(lowest, 63)
    size, offset = ((one.astype(np.float32) * many)[..., None] for one, many in ((step, steps), (low, lows)))
    numbers = np.clip(np.rint((parts + offset) / np.maximum(size, 1e-12)), 0, largest).astype(np.uint8)
    nibbles = numbers & 15
    halves = (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).reshape(-1, 128)
    fifth = np.bitwise_or.reduce((numbers >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    scales = _pack_scales(steps.astype(np.uint8), lows.astype(np.uint8))
    return np.hstack([_bytes(step), _bytes(low), scales, *([fifth] if bits == 5 else []), halves])


def _pack_signed(blocks: Numbers) -> Numbers:
    parts = blocks.reshape(-1, 16, 16)
    step, steps = _share(np.abs(parts).max(axis=2) / 31, 127)
    size = (step.astype(np.float32) * steps)[..., None]
    numbers = np.clip(np.rint(parts / np.maximum(size, 1e-12)), -32, 31) + 32
    quarters = numbers.astype(np.uint8).reshape(-1, 2, 2, 2, 32)  # half, nibble, place, number
    nibbles = quarters & 15
    low = (nibbles[:, :, 0] | nibbles[:, :, 1] << 4).reshape(-1, 128)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce(quarters.reshape(-1, 2, 4, 32) >> 4 << shifts, axis=2).reshape(-1, 64)
    return np.hstack([low, high, steps.astype(np.uint8), _bytes(step)])


def _share(scales: Numbers, largest: int) -> tuple[Numbers, Numbers]:
    """One step for a block, in float16, and how many of it each part's scale is."""
    step = (scales.max(axis=1, keepdims=True) / largest).astype(np.float16)
    return step, np.clip(np.rint(scales / np.maximum(step.astype(np.float32), 1e-12)), 0, largest)


def _pack_scales(steps: Numbers, lows: Numbers) -> Numbers:
    """Eight and eight numbers of six bits in twelve bytes; upper bits of the last four stand with the first four."""
    first = [many[:, :4] | many[:, 4:] >> 4 << 6 for many in (steps, lows)]
    return np.hstack([*first, steps[:, 4:] & 15 | (lows[:, 4:] & 15) << 4])


def _bytes(numbers: Numbers) -> Numbers:
    return np.ascontiguousarray(numbers).view(np.uint8)
