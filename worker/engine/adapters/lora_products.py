"""The factors of one layer of a LoRA -> what stands beside the model's own layer and computes their product.

LoRA (arXiv:2106.09685), also of convolutions and with a Tucker middle, becomes the two layers that peft makes of it.
The other kinds keep their factors, which are small, and multiply them in each forward pass: as two layers their
product would take up to twice the layer's own memory. DoRA (arXiv:2402.09353) is around any of them.

peft has layers of its own for LoHa and LoKr, but beside its LoRAs they stack up: where the two kinds take turns, each
that is loaded puts one more layer around the last, and none goes when its file does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.engine.adapters.lora_factors import (
    Parts,
    find_rank,
    merge_middle,
    multiply,
    name_kind,
    product_shape,
    write_shape,
)


@dataclass(frozen=True)
class Pair:
    """What peft calls A and B of one adapter in one layer: what B makes of what A makes of the input, times a scale.

    Attributes:
        first: has a `weight`, in whose number format the input comes.
        alpha: the scale, times the rank.
    """

    first: nn.Module
    second: nn.Module
    rank: int
    alpha: float


def make_pair(
    parts: Parts, layer: nn.Module, rows: Tensor | None, default_scale: Callable[[int | None], float]
) -> Pair:
    """The product for this layer, on the layer's device.

    Args:
        rows: which of the product's outputs the layer takes; None for all.
        default_scale: the scale at this rank, if the factors bring no alpha.

    Raises:
        ValueError: the shapes do not agree with the layer's or with each other.
    """
    rank, alpha, magnitude = find_rank(parts), _read_alpha(parts), _read_magnitude(parts)
    weight = _weight_of(layer)
    dtype = next(tensor.dtype for part, tensor in parts.items() if part not in _NO_FACTORS)
    factors = {part: one.to(weight.device, dtype) for part, one in parts.items() if part not in _NO_FACTORS}
    scale = default_scale(rank) if alpha is None else 1.0 if rank is None else alpha / rank
    if name_kind(parts) == "LoRA":
        first, second = _make_layers(factors, layer, rows)
        if magnitude is None:  # peft divides alpha by the rank itself
            return Pair(first, second, rank or 1, scale * (rank or 1) if alpha is None else alpha)
        inner: _Inner = _Layers(first, second, layer)
    else:
        inner = _Product(factors, layer, rows)
    if magnitude is not None:
        return Pair(_Decomposed(inner, layer, magnitude, scale, rows), nn.Identity(), 1, 1.0)
    return Pair(inner, nn.Identity(), 1, scale)


_NO_FACTORS = ("alpha", "dora_scale", "magnitude")


def _read_alpha(parts: Parts) -> float | None:
    if (alpha := parts.get("alpha")) is None:
        return None
    if alpha.numel() != 1:
        raise ValueError(f"its alpha has the shape {write_shape(alpha.shape)}")
    return float(alpha.item())


def _read_magnitude(parts: Parts) -> Tensor | None:
    """DoRA's, as a column for outputs and as a row for inputs. peft's is always for outputs, whatever its shape."""
    if (magnitude := parts.get("magnitude")) is not None:
        return magnitude.reshape(-1, 1)
    magnitude = parts.get("dora_scale")
    if magnitude is None or magnitude.numel() == 0:
        return None
    if magnitude.shape[:1] == (magnitude.numel(),):
        return magnitude.reshape(-1, 1)
    if magnitude.shape[:2] == (1, magnitude.numel()):
        return magnitude.reshape(1, -1)
    raise ValueError(f"its magnitude has the shape {write_shape(magnitude.shape)}")


def _make_layers(parts: Parts, layer: nn.Module, rows: Tensor | None) -> tuple[nn.Module, nn.Module]:
    """LoRA's two layers; a Tucker middle (arXiv:2309.14859) goes into the first."""
    shape, down, up, bias = _weight_shape(layer), parts["down"], parts["up"], parts.get("bias")
    if "mid" in parts:
        down = merge_middle(parts["mid"], down)
    if down.dim() < 2 or up.dim() < 2 or down.shape[0] == 0:
        raise ValueError(f"its factors have the shapes {write_shape(down.shape)} and {write_shape(up.shape)}")
    rank, up = down.shape[0], up.flatten(1)
    if rows is not None:
        up, bias = up[rows], None if bias is None else bias[rows]
    if up.shape != (shape[0], rank):
        raise ValueError(f"has {shape[0]} outputs, it has {up.shape[0]}, of ranks {up.shape[1]} and {rank}")
    if down.numel() != rank * math.prod(shape[1:]):
        raise ValueError(f"has {write_shape(shape[1:])} inputs, it has {write_shape(down.shape[1:])}")
    if bias is not None and bias.shape != shape[:1]:
        raise ValueError(f"has {shape[0]} outputs, its bias has {write_shape(bias.shape)}")
    first, second = _empty_layers(layer, rank, bias is not None)
    first.weight = nn.Parameter(down.reshape(rank, *shape[1:]), requires_grad=False)
    second.weight = nn.Parameter(up.reshape(second.weight.shape), requires_grad=False)
    if bias is not None:
        second.bias = nn.Parameter(bias, requires_grad=False)
    return first, second


def _empty_layers(layer: nn.Module, rank: int, bias: bool) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    """Layers without weights, of the forms that peft gives them beside this one."""
    outputs, inputs = _weight_shape(layer)[:2]
    if isinstance(layer, nn.Conv2d):
        first = nn.Conv2d(inputs, rank, layer.kernel_size, bias=False, device="meta", **_form(layer))  # type: ignore[arg-type]
        return first, nn.Conv2d(rank, outputs, 1, bias=bias, device="meta")
    return nn.Linear(inputs, rank, bias=False, device="meta"), nn.Linear(rank, outputs, bias=bias, device="meta")


class _Inner(nn.Module):
    """A product of factors for one layer."""

    @property
    def weight(self) -> Tensor:
        """One of the factors."""
        raise NotImplementedError

    def delta(self) -> Tensor:
        """What it adds to the layer's weights."""
        raise NotImplementedError


class _Layers(_Inner):
    """LoRA's two layers as one."""

    def __init__(self, first: nn.Module, second: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self._shape = first, second, _weight_shape(layer)

    @property
    def weight(self) -> Tensor:
        return _weight_of(self.first)

    def delta(self) -> Tensor:
        return (_weight_of(self.second).flatten(1) @ self.weight.flatten(1)).reshape(self._shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))  # type: ignore[no-any-return]


class _Product(_Inner):
    """Any other product, of the shape of the layer's weights."""

    def __init__(self, parts: Parts, layer: nn.Module, rows: Tensor | None) -> None:
        super().__init__()
        self._shape = _weight_shape(layer)
        outputs, inputs = product_shape(parts)
        needed = self._shape[0], math.prod(self._shape[1:])
        if (outputs if rows is None else len(rows), inputs) != needed:
            raise ValueError(f"has {write_shape(needed)} weights, it has {write_shape((outputs, inputs))}")
        self._names = tuple(parts)
        for name, factor in parts.items():  # of this module itself, so that they come when it runs, layer by layer too
            self.register_parameter(name, nn.Parameter(factor, requires_grad=False))
        self.register_buffer("rows", None if rows is None else rows.to(self.weight.device), persistent=False)
        self._form = _form(layer) if isinstance(layer, nn.Conv2d) else None

    @property
    def weight(self) -> Tensor:
        return getattr(self, self._names[0])  # type: ignore[no-any-return]

    def delta(self) -> Tensor:
        product = multiply({name: getattr(self, name) for name in self._names})
        return (product if self.rows is None else product[self.rows]).reshape(self._shape)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.delta()) if self._form is None else F.conv2d(x, self.delta(), **self._form)


class _Decomposed(nn.Module):
    """DoRA: what leads from the layer's weights to their sum with the product, brought to its magnitudes.

    The norms are those of weights that never change, so they are computed once. At another scale of the LoRA it goes
    that share of the way, as in other programs; peft's own would change the norms with it, and act at 0 too.
    """

    def __init__(self, inner: _Inner, layer: nn.Module, magnitude: Tensor, scale: float, rows: Tensor | None) -> None:
        super().__init__()
        self.inner, self._scale, self._form = inner, scale, (-1, *[1] * (len(_weight_shape(layer)) - 2))
        self._layer = (layer,)  # in a tuple, so that torch does not take it for a part of this
        self._of_outputs = magnitude.shape[1] == 1
        if rows is not None:
            if not self._of_outputs or len(magnitude) <= int(rows.max()):
                raise ValueError("its magnitudes are of a layer that is several in this model")
            magnitude = magnitude[rows]
        summed = _unpack(layer).float() + scale * inner.delta().float()
        axis = 0 if self._of_outputs else 1
        if magnitude.numel() != summed.shape[axis]:
            size = write_shape(summed.shape[:2])
            raise ValueError(f"has {size} outputs and inputs, its magnitudes are {magnitude.numel()}")
        norms = torch.linalg.vector_norm(summed, dim=[one for one in range(summed.dim()) if one != axis])
        ratios = torch.where(norms > 0, magnitude.flatten().to(norms) / norms, 0.0)
        self.ratios = nn.Parameter(ratios.reshape(self._form), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """In whose number format the input comes."""
        return self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        ratios = self.ratios.to(x.dtype)
        if self._of_outputs:
            y = (ratios - 1) * self._run_layer(x) + ratios * (self._scale * self.inner(x))
        else:
            y = self._run_layer((ratios - 1) * x) + self._scale * self.inner(ratios * x)
        return y  # type: ignore[no-any-return]

    def _run_layer(self, x: Tensor) -> Tensor:
        """The layer's own output without its bias."""
        (layer,) = self._layer
        weight, bias = _weight_of(layer), layer.bias
        y: Tensor = layer(x.to(weight.dtype) if weight.is_floating_point() else x)
        return (y if bias is None else y - bias.reshape(self._form)).to(x.dtype)  # type: ignore[operator]


def _unpack(layer: nn.Module) -> Tensor:
    """The weights of a layer that may hold them in fewer bits."""
    from peft.utils.integrations import dequantize_module_weight  # hidden where no LoRA can be named

    if not hasattr(layer.weight, "quant_type"):
        return dequantize_module_weight(layer)
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor  # hidden where no GGUF file is named

    unpacked: Tensor = dequantize_gguf_tensor(layer.weight)
    return unpacked


def _form(layer: nn.Conv2d) -> dict[str, Any]:
    return {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}


def _weight_of(layer: nn.Module) -> Tensor:
    return layer.weight  # type: ignore[return-value]


def _weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """Of the weights as they are meant; quantised ones are kept in other shapes."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return tuple(_weight_of(layer).shape)
