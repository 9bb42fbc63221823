"""A tensor of a LoRA's or an embedding's file -> numbers to compute with; what the header says is looked at first."""

import math
from typing import Any

import torch
from torch import Tensor

from worker.engine.weights import find_bad_number

MAX_VECTORS = 1_000  # of one word; of 75 tokens is CLIP's window
_NATIVE = (torch.float16, torch.bfloat16, torch.float32)
_FORMATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # of numbers, as a header names them


def holds_numbers(opened: Any, key: str) -> bool:
    """Whether this tensor of an open file is of numbers that can be computed with."""
    return opened.get_slice(key).get_dtype() in _FORMATS


def read_numbers(opened: Any, key: str) -> Tensor:
    """This tensor, in a format to compute in.

    Raises:
        ValueError: it holds what is no number, or too large a one.
    """
    tensor = _to_native(opened.get_tensor(key))
    if problem := find_bad_number(tensor):
        raise ValueError(f"{key[:100]!r} holds {problem}")
    return tensor


def read_vectors(opened: Any, key: str) -> Tensor | None:
    """This tensor, if it can be the vectors of a word, or a single one; nobody has looked at its numbers yet."""
    shape = opened.get_slice(key).get_shape()
    few = len(shape) == 1 or (len(shape) == 2 and shape[0] <= MAX_VECTORS)
    if not few or math.prod(shape) == 0 or not holds_numbers(opened, key):
        return None
    return _to_native(opened.get_tensor(key))


def _to_native(tensor: Tensor) -> Tensor:
    if tensor.dtype in _NATIVE:
        return tensor
    return tensor.to(torch.float32 if tensor.element_size() > 2 else torch.bfloat16)
