"""QUANTIZE=fp8 -> float8 weights for diffusion transformers and large text encoders, once they are loaded.

torchao keeps a matrix in float8_e4m3 with a scale for each row, and turns it into the pipeline's number format whenever
it is read. What is computed stays as exact as it was, and any CUDA device can do it; to multiply in float8 would need
one of compute capability 8.9, and round what flows through the model, too.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.hooks import group_offloading

from worker.engine.load.quantize import explain_no_transformer, is_large
from worker.errors import SettingsError

log = logging.getLogger("worker")

# What decides on the scale of everything after it, and is a small part of most models: norms and what modulates them,
# embedders of pixels, text, time and guidance, and all that stands before the first block or behind the last.
_KEPT = re.compile(r"norm|mod|embed|adaln|guidance|caption|projector", re.IGNORECASE)
_IN_A_BLOCK = re.compile(r"\.\d+\.")

_to_cpu = group_offloading.ModuleGroup._to_cpu


def keep_in_fp8(pipeline: Any, device: torch.device) -> None:
    """Put float8 weights in the place of those of the denoiser and of large text encoders.

    Args:
        device: where that is computed, a layer at a time; the weights stay where they are.

    Raises:
        SettingsError: the pipeline has no transformer, or nothing in it can be quantised.
    """
    parts = {name: part for name, part in pipeline.components.items() if is_large(name, type(part).__name__)}
    if not any(name.startswith("transformer") for name in parts):
        raise SettingsError(explain_no_transformer(type(pipeline).__name__))
    warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")  # nothing is merged here
    group_offloading._restore_torchao_tensor = send_back
    group_offloading.ModuleGroup._to_cpu = staticmethod(copy_to_keep)
    for name, part in parts.items():
        layers = list(find_layers(part))
        if not layers and name.startswith("transformer"):
            raise SettingsError(f"QUANTIZE: nothing in {type(part).__name__} can be kept in fp8; allowed: 8bit, 4bit")
        numbers = sum(layer.weight.numel() for layer in layers)
        for layer in layers:
            _quantise(layer, device)
        whole = sum(weight.numel() for weight in part.parameters())
        log.info("fp8 for %.3g of %.3g billion weights of %s: QUANTIZE says so", numbers / 1e9, whole / 1e9, name)


def send_back(weight: torch.Tensor, kept: torch.Tensor) -> None:
    """In place of diffusers' own (0.42.1), which leaves the weight saying that it is on the GPU still: a layer that
    was not fetched ahead, because a LoRA came or went, is then taken for one that is there.

    Args:
        kept: the weight in main memory, which stays as it is.
    """
    torch.utils.swap_tensors(weight, kept.detach())  # type: ignore[no-untyped-call]


def copy_to_keep(weight: torch.Tensor, low_cpu_mem_usage: bool) -> torch.Tensor:
    """In place of diffusers' own (0.42.1): of a weight that waits in pinned memory already, because a LoRA came or went
    since, it keeps no copy but the weight itself, which then goes to the GPU."""
    kept: torch.Tensor = _to_cpu(weight.detach(), low_cpu_mem_usage)
    return kept


def find_layers(part: Any) -> Iterator[torch.nn.Linear]:
    """The layers whose weights may be float8: of a denoiser those that its blocks are made of, of a text encoder all
    but the one that would name the next word."""
    output = part.get_output_embeddings() if hasattr(part, "get_output_embeddings") else None
    is_text = hasattr(part, "get_input_embeddings")
    for name, layer in part.named_modules():
        is_wanted = is_text or (_IN_A_BLOCK.search(name) and not _KEPT.search(name))
        if is_wanted and type(layer) is torch.nn.Linear and layer is not output and layer.weight.element_size() > 1:
            yield layer


def _quantise(layer: torch.nn.Linear, device: torch.device) -> None:
    from torchao.quantization import Float8WeightOnlyConfig, quantize_  # hidden where nobody wants it

    home = layer.weight.device
    quantize_(layer.to(device), Float8WeightOnlyConfig(set_inductor_config=False))
    layer.to(home)
