"""A GGUF file -> the weights of a denoiser, which stay packed in its linear layers and are unpacked at every pass.

diffusers reads it and unpacks; what is packed anywhere else than in a linear layer is unpacked once, while it loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig
from diffusers.models.model_loading_utils import load_gguf_checkpoint
from torch import Tensor, nn

from worker.engine.load.weight_file import find_prefix
from worker.models.gguf import GGUF, describe_packings, read_gguf


@dataclass(frozen=True)
class GgufFile:
    """What a file says of its weights.

    Attributes:
        shapes: of each weight, unpacked, by the name that it has in the part.
        prefix: before the part's names in the file.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    prefix: str
    formats: str

    def read(self, dtype: torch.dtype) -> dict[str, Any]:
        """The weights, packed as they are in the file."""
        weights: dict[str, Any] = load_gguf_checkpoint(str(self.path))
        return {name: _free(weights[f"{self.prefix}{name}"]) for name in self.shapes}

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """What diffusers is told to compute with these weights in this number format."""
        return {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype)}


def is_gguf(path: Path) -> bool:
    """Whether a file's name says that it is such."""
    return path.suffix == GGUF


def open_gguf(path: Path) -> GgufFile:
    """What a file holds, from its header.

    Raises:
        ModelError: it cannot be read.
    """
    tensors = read_gguf(path)
    prefix = find_prefix(tensors)
    inside = {name.removeprefix(prefix): one.shape for name, one in tensors.items() if name.startswith(prefix)}
    return GgufFile(path, MappingProxyType(inside), prefix, describe_packings(tensors))


def unpack(weight: Tensor) -> Tensor:
    """The numbers of a packed weight; any other as it is."""
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    return dequantize_gguf_tensor(weight) if isinstance(weight, GGUFParameter) else weight


def unpack_others(part: nn.Module, dtype: torch.dtype) -> None:
    """Unpack what no linear layer holds, because nothing else unpacks it when it is used."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    for module in part.modules():
        for name, weight in module.named_parameters(recurse=False):
            if isinstance(weight, GGUFParameter) and not (isinstance(module, GGUFLinear) and name == "weight"):
                plain = unpack(weight).to(dtype)
                setattr(module, name, nn.Parameter(plain, requires_grad=False))


def _free(weight: Tensor) -> Tensor:
    """Numbers of 16 bits are none that must be unpacked."""
    kind = getattr(weight, "quant_type", None)
    if kind is None or kind.name != "BF16":
        return weight
    plain: Tensor = weight.as_tensor()  # type: ignore[attr-defined]
    return plain.contiguous().view(torch.bfloat16)
