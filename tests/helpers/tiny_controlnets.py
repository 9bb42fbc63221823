"""ControlNets of the kinds that take more than a picture, for tiny models, in the layouts that are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    ControlNetUnionModel,
    FluxControlNetModel,
    QwenImageControlNetModel,
    SD3ControlNetModel,
)
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import tiny_addons, tiny_models, tiny_transformers
from worker.engine.adapters.flux_inpainting import FluxInpaintingControlNetModel

FLUX = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
SDXL_TEXT = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}


def _flux(**more: Any) -> FluxControlNetModel:
    config = dict(tiny_transformers.flux().transformer.config)
    kept = ("patch_size", "in_channels", "joint_attention_dim", "pooled_projection_dim", "axes_dims_rope")
    sizes = {name: config[name] for name in kept}
    return FluxControlNetModel(**{**sizes, **FLUX, "guidance_embeds": True, **more})


def flux_union() -> FluxControlNetModel:
    """As InstantX's: ten modes, of which seven have names."""
    return _flux(num_mode=10)


def flux_hints() -> FluxControlNetModel:
    """As XLabs': it looks at the pixels, and not at their latents."""
    return _flux(conditioning_embedding_channels=16, patch_size=2)


def flux_unguided() -> FluxControlNetModel:
    """One that takes no guidance."""
    return _flux(guidance_embeds=False)


def flux_inpainting() -> FluxInpaintingControlNetModel:
    """As alimama-creative's: the mask in four channels more."""
    config = dict(_flux().config)
    for name in ("num_mode", "conditioning_embedding_channels"):
        del config[name]
    return FluxInpaintingControlNetModel.from_config({**config, "extra_condition_channels": 4})


def wide_flux(folder: Path, hole: Image.Image) -> FluxControlNetModel:
    """The saved one with such channels as plain diffusers' class, which is handed this mask with every picture."""
    net = _flux()
    net.controlnet_x_embedder = torch.nn.Linear(68, 32)
    net.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    kept = 1 - torch.tensor(np.asarray(hole.resize((8, 8), Image.Resampling.BOX)) > 127).float()
    tokens = torch.stack(
        [kept[row : row + 2, column : column + 2].flatten() for row in (0, 2, 4, 6) for column in (0, 2, 4, 6)]
    )
    embed = net.controlnet_x_embedder.forward
    net.controlnet_x_embedder.forward = lambda shown: embed(torch.cat([shown, tokens[None]], dim=-1))
    return net


def sdxl_union(modes: int = 8) -> ControlNetUnionModel:
    """As xinsir's: six modes, or eight."""
    return ControlNetUnionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        conditioning_embedding_out_channels=(4, 4, 8, 8),
        num_control_type=modes,
        num_trans_channel=16,
        num_trans_head=2,
        num_proj_channel=16,
        **SDXL_TEXT,
    )


def sd3_inpainting() -> SD3ControlNetModel:
    """As alimama-creative's: the mask in one channel more, of which its config does not tell."""
    transformer = tiny_transformers.sd3(layers=2).transformer
    return SD3ControlNetModel.from_transformer(transformer, num_layers=1, num_extra_conditioning_channels=1)


def _qwen(extra: int) -> QwenImageControlNetModel:
    config = dict(tiny_transformers.qwen().transformer.config)
    kept = ("patch_size", "in_channels", "attention_head_dim", "num_attention_heads", "axes_dims_rope")
    sizes = {name: config[name] for name in (*kept, "joint_attention_dim")}
    return QwenImageControlNetModel(num_layers=1, extra_condition_channels=extra, **sizes)


def qwen_union() -> QwenImageControlNetModel:
    """As InstantX's: it sees by itself what kind of picture it follows."""
    return _qwen(extra=0)


def qwen_inpainting() -> QwenImageControlNetModel:
    """As InstantX's for inpainting."""
    return _qwen(extra=4)


def save(net: Any, folder: Path, seed: int = 9, **entries: Any) -> Path:
    """Write it, with the zeros that it starts from made random; of the config's entries those that are None go."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight += torch.randn_like(weight) * 0.05
    net.save_pretrained(folder)
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **entries}
    file.write_text(
        json.dumps({name: value for name, value in config.items() if value is not None or name not in entries})
    )
    return folder


MODELS = {
    "sd1": tiny_models.sd1,
    "sdxl": tiny_models.sdxl,
    "sd3": lambda: tiny_transformers.sd3(layers=2),
    "flux": tiny_transformers.flux,
    "qwen": tiny_transformers.qwen,
}


# Family -> the ControlNets beside its tiny model: how each is made, and what its published config says otherwise.
NETS: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "sd1": {"inpaint": (None, {}), "edges": (None, {})},
    "sdxl": {
        "union": (sdxl_union, {"_class_name": "ControlNetModel"}),
        "canny": (lambda: sdxl_union(6), {}),
        "edges": (None, {}),
    },
    "sd3": {"inpaint": (sd3_inpainting, {"extra_conditioning_channels": None}), "edges": (None, {})},
    "flux": {
        "union": (flux_union, {}),
        "hints": (flux_hints, {}),
        "unguided": (flux_unguided, {}),
        "fill": (flux_inpainting, {"_class_name": "FluxControlNetModel"}),
        "edges": (None, {}),
    },
    "qwen": {"union": (qwen_union, {}), "fill": (qwen_inpainting, {})},
}


class Places(dict[str, dict[str, Path]]):
    """Family -> folders: its model's, under `model`, and its ControlNets', made when first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def settings(self, family: str) -> dict[str, str]:
        """The environment of a worker with all of these."""
        nets = ",".join(f"{name}={place}" for name, place in self[family].items() if name != "model")
        return {"MODEL_NAME": str(self[family]["model"]), "CONTROLNETS": nets}

    def __missing__(self, family: str) -> dict[str, Path]:
        root, pipeline = self._root / family, MODELS[family]()
        found = {"model": tiny_models.save(pipeline, root / "model")}
        for seed, (name, (make, entries)) in enumerate(NETS[family].items(), start=3):
            if make is None:
                found[name] = tiny_addons.controlnet(pipeline, root / name, seed)
            else:
                found[name] = save(make(), root / name, seed, **entries)
        self[family] = found
        return found
