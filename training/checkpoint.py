"""Checkpoints in parts small enough to travel: fp16 weights, and the seconds each stage has had.

The optimizer's moments are left out: they are most of the size and are found again in some hundred steps.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

PART = 14 * 2**20  # bytes


def save(folder: Path, name: str, modules: dict[str, nn.Module], spent: float) -> None:
    """Write the modules' weights to folder/name-0.safetensors and so on."""
    tensors = {
        f"{module}/{key}": value.detach().to("cpu", torch.float16).contiguous()
        for module, net in modules.items()
        for key, value in net.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(_parts(tensors)):
        file = folder / f"{name}-{index}.safetensors"
        save_file(part, file.with_suffix(".new"), metadata={"spent": str(spent)})
        file.with_suffix(".new").replace(file)  # whoever copies it meanwhile gets all of it


def restore(folder: Path, name: str, modules: dict[str, nn.Module]) -> float:
    """Read what `save` wrote into the modules.

    Returns:
        The seconds spent; 0.0, the modules untouched, where there is no checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    spent = 0.0
    for file in sorted(folder.glob(f"{name}-[0-9].safetensors")):
        with safe_open(file, "pt") as part:
            tensors |= {key: part.get_tensor(key) for key in part.keys()}  # noqa: SIM118 - it has no iterator
            spent = float(part.metadata()["spent"])
    if tensors:
        for module, net in modules.items():
            own = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{module}/")}
            net.load_state_dict(own)
    return spent


def _parts(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split so that no part is over PART bytes."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in tensors.items():
        if size + value.nbytes > PART:
            parts.append({})
            size = 0
        parts[-1][key] = value
        size += value.nbytes
    return parts
