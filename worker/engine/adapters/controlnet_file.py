"""A ControlNet in one `.safetensors` file -> the diffusers model; the tensors and the denoiser say what its config is.

Two layouts are traded: diffusers' own names, and those of the original code, alone or under `control_model.`.
"""

import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors import safe_open

from worker.engine.weights import limit_weights
from worker.errors import ModelError

log = logging.getLogger("worker")

_ORIGINAL = "control_model."
# Part of a tensor's name -> what such a file is instead; the first that fits names it.
_OTHERS: Mapping[str, str] = MappingProxyType(
    {
        "lllite_unet": "a ControlNet-LLLite, which diffusers does not know",
        "lora_controlnet": "a Control-LoRA, which lacks the weights that it shares with a model",
        "difference": "the difference of a ControlNet to a model; take the version with all weights",
        "adapter.body.": "a T2I-Adapter, which is no ControlNet",
        "body.0.": "a T2I-Adapter, which is no ControlNet",
        "lora_": "a LoRA; LORA_DIR and LORA_REPOS offer such",
        "ip_adapter": "an IP-Adapter; name it in IP_ADAPTER",
        "double_blocks.0.": "for FLUX in another layout than diffusers'; take the version in diffusers layout",
        "model.diffusion_model.": "a whole model; name it in MODEL_NAME",
        "emb_params": "a textual inversion embedding",
    }
)
_MARKS = {  # a tensor that only this class has; the first that fits
    "task_embedding": "ControlNetUnionModel",
    "controlnet_down_blocks.0.weight": "ControlNetModel",
    "controlnet_x_embedder.weight": "FluxControlNetModel",
    "pos_embed_input.proj.weight": "SD3ControlNetModel",
}


@dataclass(frozen=True)
class ControlNetFile:
    """What the header of a ControlNet's file says.

    Attributes:
        title: as the log and messages name it; it may tell what no tensor does.
        names: diffusers' names of its tensors -> their names in the file.
        shapes: of the tensors, by diffusers' names.
    """

    path: Path
    title: str
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @cached_property
    def entries(self) -> dict[str, Any]:
        """The class of diffusers, and the width of the text that it attends to, as a config has them."""
        kind = next(kind for mark, kind in _MARKS.items() if mark in self.shapes)
        text = next((shape[-1] for name, shape in self.shapes.items() if name.endswith("attn2.to_k.weight")), None)
        joint = self.shapes.get("context_embedder.weight", (None,))[-1]
        return {"_class_name": kind, "cross_attention_dim": text, "joint_attention_dim": joint}

    def load(self, denoiser: Any, dtype: torch.dtype) -> Any:
        """The ControlNet on the CPU, in this number format; what no tensor says is as in the denoiser.

        Raises:
            ModelError: it is not complete, or its tensors do not fit the denoiser.
        """
        kind = getattr(diffusers, self.entries["_class_name"])
        with limit_weights(self.title, [self.path]), init_empty_weights():
            net = kind.from_config(self._config(kind, denoiser.config))
        self._check(net)
        with safe_open(self.path, framework="pt") as file:
            weights = {name: file.get_tensor(self.names[name]) for name in net.state_dict()}
        net.load_state_dict(weights, assign=True)
        return net.to(dtype).eval()

    def _config(self, kind: type, own: Mapping[str, Any]) -> dict[str, Any]:
        taken = {name: own[name] for name in inspect.signature(kind).parameters if name in own}
        if kind is diffusers.FluxControlNetModel:
            return {**taken, **_read_flux(self.shapes)}
        if kind is diffusers.SD3ControlNetModel:
            raise ModelError(f"{self.title} is for Stable Diffusion 3, and its config.json is needed: name its folder")
        return {**taken, **_read_unet(self.shapes, own, self.title)}

    def _check(self, net: Any) -> None:
        needed = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
        what = f"{self.title} is no complete {type(net).__name__}"
        if missing := [name for name in needed if name not in self.shapes]:
            raise ModelError(f"{what}: missing {len(missing)} weights, e.g. {missing[0]}")
        if other := [name for name, shape in needed.items() if shape != self.shapes[name]]:
            came = f"{other[0]} has shape {self.shapes[other[0]]}, and should have {needed[other[0]]}"
            raise ModelError(f"{self.title} does not fit this model: {came}")
        if left := [name for name in self.names if name not in needed]:
            example = ascii(self.names[left[0]])[:100]
            log.warning("%s: %d tensors have no effect, e.g. %s", self.title, len(left), example)


def read_controlnet_file(path: Path, title: str) -> ControlNetFile:
    """Tell what a file holds from its header.

    Args:
        title: as messages name it.

    Raises:
        ModelError: it is no ControlNet, or of a kind that cannot be read.
    """
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    names = _find_names(shapes)
    found = {name: shapes[old] for name, old in names.items()}
    other = next((what for part, what in _OTHERS.items() if any(part in name for name in shapes)), None)
    marked = any(mark in found for mark in _MARKS)
    if not marked or "difference" in shapes or "lora_controlnet" in shapes:
        raise ModelError(f"{title} is {other or 'no ControlNet that this worker knows'}")
    return ControlNetFile(path, title, names, found)


def _find_names(shapes: Iterable[str]) -> dict[str, str]:
    """diffusers' names -> those in the file."""
    names = list(shapes)
    original = {name.removeprefix(_ORIGINAL): name for name in names if name.startswith(_ORIGINAL)}
    if not original and "zero_convs.0.0.weight" in names:
        original = {name: name for name in names}
    if not original:
        return {name: name for name in names}
    downs = [int(found[1]) for name in original if (found := re.match(r"input_blocks\.(\d+)\.0\.op\.weight", name))]
    # diffusers only moves what stands behind the names, so that the names of the file can stand there.
    moved = convert_controlnet_checkpoint(original, {"layers_per_block": min(downs, default=3) - 1})
    for name, old in original.items():
        if embedding := re.fullmatch(r"label_emb\.0\.([02])\.(weight|bias)", name):
            moved[f"add_embedding.linear_{1 if embedding[1] == '0' else 2}.{embedding[2]}"] = old
    return {name: old for name, old in moved.items() if old is not None}


def _read_flux(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    modes, hint = shapes.get("controlnet_mode_embedder.weight"), shapes.get("input_hint_block.conv_out.weight")
    return {
        "in_channels": shapes["x_embedder.weight"][1],
        "num_layers": _count(r"transformer_blocks\.(\d+)\.", shapes),
        "num_single_layers": _count(r"single_transformer_blocks\.(\d+)\.", shapes),
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        "num_mode": modes and modes[0],
        "conditioning_embedding_channels": hint and hint[0],
    }


def _read_unet(shapes: Mapping[str, tuple[int, ...]], own: Mapping[str, Any], title: str) -> dict[str, Any]:
    levels = _count(r"down_blocks\.(\d+)\.", shapes)
    if levels != len(own["block_out_channels"]):
        raise ModelError(f"{title} does not fit this model: it has {levels} levels of resolution")
    depths = [_count(rf"down_blocks\.{i}\.attentions\.0\.transformer_blocks\.(\d+)\.", shapes) for i in range(levels)]
    middle = _count(r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\.", shapes)
    hints = [f"controlnet_cond_embedding.blocks.{i}.weight" for i in range(1, 99, 2)]
    first = shapes.get("controlnet_cond_embedding.conv_in.weight", (0, 0))
    found = {
        "block_out_channels": [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)],
        "layers_per_block": _count(r"down_blocks\.0\.resnets\.(\d+)\.", shapes),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), middle or depths[-1] or 1],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
        "conditioning_channels": first[1],
        "conditioning_embedding_out_channels": [first[0], *(shapes[name][0] for name in hints if name in shapes)],
        "addition_embed_type": own.get("addition_embed_type") if "add_embedding.linear_1.weight" in shapes else None,
        "global_pool_conditions": "shuffle" in title.lower(),  # which no tensor says; the published files are named so
    }
    if found["global_pool_conditions"]:
        log.info("%s: its conditions are pooled, because its name says shuffle", title)
    if task := shapes.get("task_embedding"):
        del found["mid_block_type"]
        found |= {"num_control_type": task[0], "num_trans_channel": task[1]}
    return found


def _count(pattern: str, names: Iterable[str]) -> int:
    """How many different numbers stand where the pattern has its group."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})
