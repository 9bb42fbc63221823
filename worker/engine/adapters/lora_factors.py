"""The factors of one layer of a LoRA: what they are of, which shape their product has, and the product itself.

LoHa (arXiv:2108.06098) and LoKr are as LyCORIS has them (arXiv:2309.14859). Shapes are computed from the factors'
own, so that nothing is multiplied before it is known to fit.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]

MAX_TUCKER_RANK = 4_096  # of a middle, which is multiplied with each of its factors in turn


def name_kind(parts: Parts) -> str | None:
    """What these are the factors of; None if some are missing."""
    if {"down", "up"} <= parts.keys():
        return "LoRA"
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= parts.keys():
        return "LoHa"
    if _has_factor(parts, "lokr_w1") and _has_factor(parts, "lokr_w2"):
        return "LoKr"
    return "difference" if "diff" in parts else None


def count_rows(parts: Parts) -> int:
    """How many outputs the product has.

    Raises:
        ValueError: the factors' shapes do not agree with each other.
    """
    kind = name_kind(parts)
    if kind in ("LoRA", "difference"):
        return next(iter(parts["up" if kind == "LoRA" else "diff"].shape), 1)
    return product_shape(parts)[0]


def find_rank(parts: Parts) -> int | None:
    """By which alpha is divided; None where there is none, as for two whole factors of LoKr."""
    for part in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if part in parts:
            return int(max([1, *parts[part].shape[:1]]))
    return None


def product_shape(parts: Parts) -> tuple[int, int]:
    """Outputs and, kernels included, inputs of a product that is no LoRA's.

    Raises:
        ValueError: the factors' shapes do not agree with each other.
    """
    kind = name_kind(parts)
    if kind == "difference":
        return _flat_shape(parts["diff"])
    if kind == "LoHa":
        one, other = (_factor_shape(parts, f"hada_w{number}", f"hada_t{number}") for number in "12")
        if one != other:
            raise ValueError(f"its two products have {write_shape(one)} and {write_shape(other)} weights")
        return one
    one, other = _factor_shape(parts, "lokr_w1", None), _factor_shape(parts, "lokr_w2", "lokr_t2")
    return one[0] * other[0], one[1] * other[1]


def multiply(parts: Mapping[str, Any]) -> Tensor:
    """The product, outputs first."""
    if "diff" in parts:
        return parts["diff"]  # type: ignore[no-any-return]
    if "hada_w1_a" in parts:
        return _multiply(parts, "hada_w1", "hada_t1") * _multiply(parts, "hada_w2", "hada_t2")
    one, other = _multiply(parts, "lokr_w1", None), _multiply(parts, "lokr_w2", "lokr_t2")
    return torch.kron(one.reshape(*one.shape, *[1] * (other.dim() - one.dim())), other)


def merge_middle(middle: Tensor, down: Tensor) -> Tensor:
    """LoRA's first factor and a Tucker middle after it, as one factor with the middle's kernel.

    Raises:
        ValueError: their shapes do not agree.
    """
    if middle.dim() != 4 or down.dim() < 2 or middle.shape[1] != down.shape[0] or len(middle) > MAX_TUCKER_RANK:
        raise ValueError(f"its middle of shape {write_shape(middle.shape)} does not fit {write_shape(down.shape)}")
    return torch.einsum("irkl,rj->ijkl", middle, down.flatten(1))


def write_shape(shape: Any) -> str:
    """A shape as people write it."""
    return " x ".join(str(size) for size in shape)


def _has_factor(parts: Parts, name: str) -> bool:
    return name in parts or {f"{name}_a", f"{name}_b"} <= parts.keys()


def _flat_shape(tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() not in (2, 4):
        raise ValueError(f"a factor has the shape {write_shape(tensor.shape) or 'of a single number'}")
    return tensor.shape[0], math.prod(tensor.shape[1:])


def _factor_shape(parts: Parts, name: str, middle: str | None) -> tuple[int, int]:
    """Of a factor that is whole, or the product of two, with a Tucker middle or none."""
    if name in parts:
        return _flat_shape(parts[name])
    a, b, core = parts[f"{name}_a"], parts[f"{name}_b"], parts.get(middle or "")
    if a.dim() != 2 or b.dim() != 2:
        raise ValueError(f"its factors have the shapes {write_shape(a.shape)} and {write_shape(b.shape)}")
    if core is None:
        if a.shape[1] != b.shape[0]:
            raise ValueError(f"its factors of ranks {a.shape[1]} and {b.shape[0]} do not fit each other")
        return a.shape[0], b.shape[1]
    if core.dim() != 4 or core.shape[:2] != (a.shape[0], b.shape[0]) or max(core.shape[:2]) > MAX_TUCKER_RANK:
        raise ValueError(f"its middle of shape {write_shape(core.shape)} does not fit its factors")
    return a.shape[1], b.shape[1] * math.prod(core.shape[2:])


def _multiply(parts: Mapping[str, Any], name: str, middle: str | None) -> Tensor:
    if name in parts:
        return parts[name]  # type: ignore[no-any-return]
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    if middle is not None and middle in parts:
        return torch.einsum("ijkl,ip,jr->prkl", parts[middle], a, b).contiguous()  # which torch.kron needs
    return a @ b  # type: ignore[no-any-return]
