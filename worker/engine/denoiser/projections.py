"""Queries, keys and values of a UNet's attention from one product, where their weights lie one behind the other.

diffusers joins them too, in weights of its own beside those that adapters know: 1.3 GB more of SDXL's.
"""

from collections.abc import Iterator, Sequence

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, FusedAttnProcessor2_0
from torch import Tensor
from torch.nn import Linear, Parameter


def place_projections_together(module: torch.nn.Module) -> None:
    """Lay weights that one product can read one behind the other; each stays its own layer's."""
    for _, layers in _find(module):
        together = torch.cat([layer.weight.data for layer in layers])
        for layer, rows in zip(layers, together.chunk(len(layers)), strict=True):
            layer.weight.data = rows


def join_projections(module: torch.nn.Module) -> None:
    """Have the module compute them in one product, of the same weights, where these lie so."""
    for attention, layers in _find(module):
        weight = _as_one([layer.weight.data for layer in layers])
        if weight is not None:
            rows, columns = weight.shape
            product = Linear(columns, rows, bias=False, device="meta")
            product.weight = Parameter(weight, requires_grad=False)
            setattr(attention, "to_kv" if attention.is_cross_attention else "to_qkv", product)
            attention.set_processor(FusedAttnProcessor2_0())


def _find(module: torch.nn.Module) -> Iterator[tuple[Attention, Sequence[Linear]]]:
    """Attention that can be joined, and those of its layers that are given the same."""
    for attention in list(module.modules()):
        if isinstance(attention, Attention) and type(attention.processor) is AttnProcessor2_0:
            layers = [attention.to_k, attention.to_v]
            if not attention.is_cross_attention:
                layers.insert(0, attention.to_q)
            plain = all(type(layer) is Linear and layer.bias is None for layer in layers)
            if plain and len({layer.weight.shape for layer in layers}) == 1:
                yield attention, layers


def _as_one(weights: Sequence[Tensor]) -> Tensor | None:
    """All their rows, without a copy; None if there is something between them."""
    first, *others = weights
    storage, end = first.untyped_storage(), first.data_ptr() + first.nbytes
    for one in others:
        if one.untyped_storage().data_ptr() != storage.data_ptr() or one.data_ptr() != end:
            return None
        end += one.nbytes
    rows, columns = first.shape
    return first.as_strided((len(weights) * rows, columns), (columns, 1))
