"""LoRA files in every form that trainers write, and what each adds to a layer's weights, computed independently.

The products are written out in NumPy and double precision, element by element where that says more than a formula.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray
Factors = dict[str, Tensor]


@dataclass(frozen=True)
class Form:
    """One layer's factors under the names of kohya's scripts and LyCORIS, and the weights that they stand for."""

    factors: Factors
    delta: Array


class Maker:
    """Makes factors for layers out of one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def random(self, *shape: int) -> Tensor:
        """Numbers of the size of trained ones."""
        return torch.randn(*shape, generator=self._generator) * 0.3

    def lora(self, weight: Tensor, rank: int = 2, alpha: float | None = 1.0) -> Form:
        """LoRA; on a convolution LoCon, whose first factor has the kernel."""
        down, up = self.random(rank, *weight.shape[1:]), self.random(weight.shape[0], rank)
        factors = {"lora_down.weight": down, "lora_up.weight": _as_kernel(up, weight)}
        product = np.tensordot(_double(up), _double(down), 1)
        return Form(*_with_alpha(factors, product, alpha, rank))

    def tucker(self, weight: Tensor, rank: int = 3) -> Form:
        """LoCon with a middle: three convolutions in a row, of which the middle one has the kernel."""
        down, up = self.random(rank, weight.shape[1], 1, 1), self.random(weight.shape[0], rank, 1, 1)
        mid = self.random(rank, rank, *weight.shape[2:])
        factors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
        product = np.zeros(tuple(weight.shape))
        for i in range(rank):
            for j in range(rank):
                ends = np.multiply.outer(_double(up)[:, i, 0, 0], _double(down)[j, :, 0, 0])
                product += np.multiply.outer(ends, _double(mid)[i, j])
        return Form(*_with_alpha(factors, product, 1.5, rank))

    def loha(self, weight: Tensor, rank: int = 3) -> Form:
        """The element by element product of two products."""
        flat = weight.flatten(1)
        factors, products = {}, []
        for number in "12":
            a, b = self.random(flat.shape[0], rank), self.random(rank, flat.shape[1])
            factors |= {f"hada_w{number}_a": a, f"hada_w{number}_b": b}
            products.append(_double(a) @ _double(b))
        return Form(*_with_alpha(factors, (products[0] * products[1]).reshape(weight.shape), 2.0, rank))

    def loha_tucker(self, weight: Tensor, rank: int = 2) -> Form:
        """The same of two products with a middle."""
        factors, products = {}, []
        for number in "12":
            a, b = self.random(rank, weight.shape[0]), self.random(rank, weight.shape[1])
            middle = self.random(rank, rank, *weight.shape[2:])
            factors |= {f"hada_w{number}_a": a, f"hada_w{number}_b": b, f"hada_t{number}": middle}
            products.append(_tucker(a, b, middle))
        return Form(*_with_alpha(factors, products[0] * products[1], None, rank))

    def lokr(self, weight: Tensor, low_rank: str = "", rank: int = 2) -> Form:
        """Kronecker's product of a small matrix and a larger one, each whole or, if named, of low rank."""
        (a, b), (c, d) = (_split(size) for size in weight.shape[:2])
        factors: Factors = {}
        whole: list[Array] = []
        for number, rows, columns in (("1", a, (c,)), ("2", b, (d, *weight.shape[2:]))):
            if number in low_rank:
                one, other = self.random(rows, rank), self.random(rank, int(np.prod(columns)))
                factors |= {f"lokr_w{number}_a": one, f"lokr_w{number}_b": other}
                whole.append((_double(one) @ _double(other)).reshape(rows, *columns))
            else:
                factors[f"lokr_w{number}"] = self.random(rows, *columns)
                whole.append(_double(factors[f"lokr_w{number}"]))
        product = _kronecker(whole[0], whole[1])
        alpha = 3.0  # without a rank there is nothing to divide it by, and it has no meaning
        return Form({**factors, "alpha": torch.tensor(alpha)}, product * (alpha / rank if low_rank else 1.0))

    def lokr_tucker(self, weight: Tensor, rank: int = 2) -> Form:
        """Its larger matrix with a middle."""
        (a, b), (c, d) = (_split(size) for size in weight.shape[:2])
        one, middle = self.random(a, c), self.random(rank, rank, *weight.shape[2:])
        rows, columns = self.random(rank, b), self.random(rank, d)
        factors = {"lokr_w1": one, "lokr_t2": middle, "lokr_w2_a": rows, "lokr_w2_b": columns}
        product = _kronecker(_double(one), _tucker(rows, columns, middle))
        return Form(*_with_alpha(factors, product, 1.0, rank))

    def difference(self, weight: Tensor) -> Form:
        """No product: all of it."""
        diff = self.random(*weight.shape) * 0.1
        return Form({"diff": diff}, _double(diff))

    def dora(self, weight: Tensor, inner: Form, by_inputs: bool = False) -> Form:
        """Any of them, each output's (or input's) weights brought to a magnitude of its own."""
        axis = 1 if by_inputs else 0
        summed = _double(weight) + inner.delta
        magnitude = self.random(weight.shape[axis]).abs() + 0.5
        result = np.empty_like(summed)
        for i in range(weight.shape[axis]):
            one = summed.take(i, axis)
            result[(slice(None),) * axis + (i,)] = one * float(magnitude[i]) / np.sqrt((one**2).sum())
        shape = [1] * weight.dim()
        shape[axis] = -1
        return Form({**inner.factors, "dora_scale": magnitude.reshape(shape)}, result - _double(weight))


# Name -> how it is made for a layer's weights. Those with a kernel are for convolutions.
FORMS: Mapping[str, Callable[[Maker, Tensor], Form]] = {
    "LoRA": Maker.lora,
    "LoRA without alpha": lambda maker, weight: maker.lora(weight, alpha=None),
    "LoHa": Maker.loha,
    "LoKr": Maker.lokr,
    "LoKr, second of low rank": lambda maker, weight: maker.lokr(weight, "2"),
    "LoKr, both of low rank": lambda maker, weight: maker.lokr(weight, "12"),
    "difference": Maker.difference,
    "DoRA": lambda maker, weight: maker.dora(weight, maker.lora(weight)),
    "DoRA by inputs": lambda maker, weight: maker.dora(weight, maker.lora(weight), by_inputs=True),
    "DoRA of LoHa": lambda maker, weight: maker.dora(weight, maker.loha(weight)),
    "DoRA of LoKr": lambda maker, weight: maker.dora(weight, maker.lokr(weight, "2"), by_inputs=True),
}
KERNEL_FORMS: Mapping[str, Callable[[Maker, Tensor], Form]] = {
    "LoCon with a middle": Maker.tucker,
    "LoHa with a middle": Maker.loha_tucker,
    "LoKr with a middle": Maker.lokr_tucker,
    "DoRA with a middle": lambda maker, weight: maker.dora(weight, maker.tucker(weight)),
}


def list_layers(module: nn.Module) -> dict[str, Tensor]:
    """Every layer that has weights to add to, as published files name it."""
    return {
        name: layer.weight.detach()
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }


def _with_alpha(factors: Factors, product: Array, alpha: float | None, rank: int) -> tuple[Factors, Array]:
    if alpha is None:
        return factors, product
    return {**factors, "alpha": torch.tensor(alpha)}, product * (alpha / rank)


def _as_kernel(matrix: Tensor, weight: Tensor) -> Tensor:
    return matrix.reshape(*matrix.shape, *[1] * (weight.dim() - 2))


def _double(tensor: Tensor) -> Array:
    return tensor.double().numpy()


def _split(size: int) -> tuple[int, int]:
    """Two factors, the first the smaller."""
    first = max(one for one in range(1, int(size**0.5) + 1) if size % one == 0)
    return first, size // first


def _tucker(a: Tensor, b: Tensor, middle: Tensor) -> Array:
    product = np.zeros((a.shape[1], b.shape[1], *middle.shape[2:]))
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            product += np.multiply.outer(np.outer(_double(a)[i], _double(b)[j]), _double(middle)[i, j])
    return product


def _kronecker(small: Array, large: Array) -> Array:
    rows = [np.concatenate([value * large for value in row], axis=1) for row in small]
    return np.concatenate(rows, axis=0)
