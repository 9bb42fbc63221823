"""The weights of one part of a model in one file: what they are called and shaped, and the numbers that they mean.

A file may hold them in fewer bits: fp8 by itself, or with scales beside it as ComfyUI and Black Forest Labs write them.
What such a file means is weight times scale, and that is what is read.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from worker.errors import ModelError
from worker.files import UnreadableError
from worker.models.checks import describe_file

MAX_MARK_BYTES = 1_000  # of what a file says of one layer's format

_PREFIXES = ("model.diffusion_model.", "diffusion_model.")  # of the denoiser, in whole checkpoints and by trainers
_READ = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
_SCALE = re.compile(r"(.+\.)(?:scale_weight|weight_scale)")
_ACTIVATIONS = re.compile(r".+\.(?:scale_input|input_scale)")  # for fp8 arithmetic, which is not done here
_MARK = re.compile(r"(.+)\.comfy_quant")
_MARKS = ("float8_e4m3fn", "float8_e5m2")
_FILE_MARK = "scaled_fp8"
# The end of a tensor's name -> the format that it is a sign of.
_UNREAD = {
    "weight_scale_2": "nvfp4",
    "absmax": "bitsandbytes' format",
    "quant_map": "bitsandbytes' format",
    "qweight": "a format of integers (SVDQuant, AWQ or GPTQ)",
}


@dataclass(frozen=True)
class WeightFile:
    """What a file says of its weights.

    Attributes:
        shapes: of each weight, by the name that it has in the part.
        scales: weight -> the tensor of the file that it is to be multiplied with.
        formats: how many weights are in which number format, to be told.
        prefix: before the part's names in the file.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    scales: Mapping[str, str]
    formats: str
    prefix: str

    def read(self, dtype: torch.dtype) -> dict[str, Any]:
        """The weights; those of fewer bits in this number format."""
        with safe_open(self.path, framework="pt") as file:
            return {name: self._read_one(file, name, dtype) for name in self.shapes}

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """What diffusers is told of these weights."""
        return {}

    def _read_one(self, file: Any, name: str, dtype: torch.dtype) -> torch.Tensor:
        weight: torch.Tensor = file.get_tensor(f"{self.prefix}{name}")
        if name in self.scales:
            scale: torch.Tensor = file.get_tensor(self.scales[name]).float()
            return weight.float().mul_(scale.reshape(-1, 1) if scale.numel() > 1 else scale.reshape(())).to(dtype)
        return weight.to(dtype) if weight.element_size() == 1 else weight.clone()  # no longer mapped from the file


def open_weights(path: Path) -> WeightFile:
    """What a file holds, from its header.

    Raises:
        ModelError: it cannot be read, or some of it is in a format that is not read here, which is named.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            told = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
            marks = {name: _read_mark(file, name, told[name][1]) for name in told if _MARK.fullmatch(name)}
    except (SafetensorError, UnreadableError, OSError) as error:
        raise ModelError(f"{path} {describe_file(path, error)}") from error
    for name, said in marks.items():
        if said not in _MARKS:
            raise ModelError(
                f"{path}: {name} says {said!r}; read are {', '.join(_MARKS)}, and weights of 16 bits or more"
            )
    if odd := next((name for name in told if not name.isprintable()), None):
        raise ModelError(f"{path} holds the name {odd[:80]!r}")
    prefix = find_prefix(told)
    inside = {name: entry for name, entry in told.items() if name.startswith(prefix) and not _says_more(name)}
    scales = {f"{found[1]}weight": name for name in inside if (found := _SCALE.fullmatch(name))}
    weights = {name: entry for name, entry in inside.items() if name not in {*scales.values()}}
    _check_formats(path, weights, scales, told)
    cut = len(prefix)
    return WeightFile(
        path,
        MappingProxyType({name[cut:]: shape for name, (_, shape) in weights.items()}),
        MappingProxyType({name[cut:]: scale for name, scale in scales.items()}),
        ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in weights.values()).most_common()),
        prefix,
    )


def find_prefix(names: Iterable[str]) -> str:
    """What stands before the denoiser's names in a file, if anything."""
    known = {*names}
    return next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in known)), "")


def _says_more(name: str) -> bool:
    """Whether a tensor is no weight, but says how others were made or are used."""
    return name.endswith(_FILE_MARK) or bool(_ACTIVATIONS.fullmatch(name) or _MARK.fullmatch(name))


def _read_mark(file: Any, name: str, shape: tuple[int, ...]) -> str:
    """The format that ComfyUI notes beside a layer."""
    if len(shape) != 1 or shape[0] > MAX_MARK_BYTES:
        return f"a tensor of {'x'.join(map(str, shape))}"
    try:
        said = json.loads(bytes(file.get_tensor(name).to(torch.uint8).tolist()))
    except (ValueError, RecursionError):
        return "what is no JSON"
    return str(said.get("format") if isinstance(said, dict) else said)[:80]


def _check_formats(
    path: Path,
    weights: Mapping[str, tuple[str, tuple[int, ...]]],
    scales: Mapping[str, str],
    told: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Refuse the first weight that is in a format that is not read here."""
    read = "read are float8 (with a scale, or one for each row), and weights of 16 bits or more"
    for name, (kind, _) in weights.items():
        if sign := next((title for end, title in _UNREAD.items() if name.endswith(f".{end}")), None):
            raise ModelError(f"{path}: {name} is of {sign}; {read}")
        if kind not in _READ:
            raise ModelError(f"{path}: {name} is in {kind}; {read}")
    for name, scale in scales.items():
        kind, shape = weights.get(name, ("", ()))
        scale_kind, scale_shape = told[scale]
        one_each = scale_shape in ((), (1,), (1, 1), shape[:1], (*shape[:1], 1)) and len(shape) in (1, 2)
        if kind not in _EIGHT_BITS or scale_kind not in ("F32", "F16", "BF16") or not one_each:
            came = (
                f"{scale_kind} {'x'.join(map(str, scale_shape))} for {kind or 'no weight'} {'x'.join(map(str, shape))}"
            )
            raise ModelError(f"{path}: {scale} is {came}; {read}")
