"""What jobs may name beside a tiny model, as files with random weights in the layouts that are published.

LoRAs, ControlNets, an IP-Adapter with its image encoder, and words of textual inversion, for a tiny pipeline of any
family that takes them. Their weights are large enough that each changes every picture.
"""

import base64
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel, FluxControlNetModel, SD3ControlNetModel
from diffusers.models.embeddings import IPAdapterTimeImageProjection
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.helpers import tiny_models, tiny_transformers

FAMILIES = {
    "sd1": tiny_models.sd1,
    "sdxl": tiny_models.sdxl,
    "sd3": partial(tiny_transformers.sd3, layers=2),  # a ControlNet speaks to all but the last
    "flux": tiny_transformers.flux,
}
_WIDTH = 16  # of what the image encoders say


@dataclass(frozen=True)
class Kit:
    """One family's files.

    Attributes:
        model: folder in diffusers layout.
        loras: folder with plain.safetensors for the denoiser, and wordy.safetensors for the text encoders too.
        controlnets: name -> folder; there are edges and depth.
        ip_adapter: file.
        image_encoder: its folder.
        words: folder with wobble.safetensors, of three vectors, and dot.safetensors, of one; None if it takes none.
    """

    model: Path
    loras: Path
    controlnets: dict[str, Path]
    ip_adapter: Path
    image_encoder: Path
    words: Path | None

    def settings(self, *parts: str) -> dict[str, str]:
        """The environment of a worker with this model and these parts beside it."""
        offered = {
            "loras": {"LORA_DIR": str(self.loras)},
            "controlnets": {"CONTROLNETS": ",".join(f"{name}={place}" for name, place in self.controlnets.items())},
            "ip_adapter": {"IP_ADAPTER": str(self.ip_adapter), "IP_ADAPTER_ENCODER": str(self.image_encoder)},
            "words": {"EMBEDDINGS_DIR": str(self.words)},
        }
        environment = {"MODEL_NAME": str(self.model)}
        for part in parts:
            environment |= offered[part]
        return environment


def kit(family: str, root: Path) -> Kit:
    """Everything for the tiny model of this family, below `root`."""
    pipeline = FAMILIES[family]()
    model = tiny_models.save(pipeline, root / "model")
    loras = root / "loras"
    lora(pipeline, loras / "plain.safetensors", seed=1)
    lora(pipeline, loras / "wordy.safetensors", seed=2, text=True)
    controlnets = {
        name: controlnet(pipeline, root / name, seed) for seed, name in enumerate(("edges", "depth"), start=3)
    }
    encoder = image_encoder(root / "image_encoder", siglip=family == "sd3")
    adapter = ip_adapter(pipeline, root / "adapter.safetensors")
    words = root / "words" if family in ("sd1", "sdxl") else None
    if words is not None:
        embedding(pipeline, words / "wobble.safetensors", vectors=3)
        embedding(pipeline, words / "dot.safetensors", vectors=1)
    return Kit(model, loras, controlnets, adapter, encoder, words)


class Kits(dict[str, Kit]):
    """Family -> a tiny model and the files that jobs may name beside it, made when first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __missing__(self, family: str) -> Kit:
        self[family] = kit(family, self._root / family)
        return self[family]


def denoiser(pipeline: Any) -> torch.nn.Module:
    """The UNet or the transformer."""
    found = getattr(pipeline, "unet", None) or pipeline.transformer
    assert isinstance(found, torch.nn.Module)
    return found


def lora(pipeline: Any, file: Path, seed: int, text: bool = False) -> Path:
    """A LoRA of rank 2 on the denoiser's attention and, if `text`, on that of the CLIP text encoders."""
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    # Published files still have the text_model that transformers has taken out of the middle.
    parts = [(name, denoiser(pipeline))]
    if text:
        parts += [(f"{one}.text_model", module) for one, module in _clips(pipeline)]
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for prefix, module in parts:
        for layer, width, height in attention(module):
            weights[f"{prefix}.{layer}.lora_A.weight"] = torch.randn(2, width, generator=generator) * 0.3
            weights[f"{prefix}.{layer}.lora_B.weight"] = torch.randn(height, 2, generator=generator) * 0.3
    return write(weights, file)


def kohya_lora(pipeline: Any, file: Path, seed: int) -> Path:
    """A LoRA for Stable Diffusion 1 under the names that kohya's scripts give, with an alpha of half its rank."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for prefix, module in (("lora_unet", pipeline.unet), ("lora_te_text_model", pipeline.text_encoder)):
        for layer, width, height in attention(module):
            key = f"{prefix}_{layer.replace('.', '_').removeprefix('text_model_')}"
            weights[f"{key}.lora_down.weight"] = torch.randn(2, width, generator=generator) * 0.3
            weights[f"{key}.lora_up.weight"] = torch.randn(height, 2, generator=generator) * 0.3
            weights[f"{key}.alpha"] = torch.tensor(1.0)
    return write(weights, file)


def attention(module: torch.nn.Module) -> Iterator[tuple[str, int, int]]:
    """Name, inputs and outputs of the linear layers that LoRAs are usually for."""
    for name, layer in module.named_modules():
        if name.endswith((".to_q", ".to_v", ".q_proj", ".v_proj", ".out_proj")):
            yield name.removeprefix("text_model."), layer.in_features, layer.out_features


def _clips(pipeline: Any) -> list[tuple[str, torch.nn.Module]]:
    found = [(name, getattr(pipeline, name, None)) for name in ("text_encoder", "text_encoder_2")]
    return [(name, part) for name, part in found if part is not None and type(part).__name__.startswith("CLIP")]


def controlnet(pipeline: Any, folder: Path, seed: int) -> Path:
    """A ControlNet made of the denoiser, with the zeros that it starts from made random."""
    torch.manual_seed(seed)
    part: Any = denoiser(pipeline)
    net: Any
    if hasattr(pipeline, "unet"):
        net = ControlNetModel.from_unet(part, conditioning_embedding_out_channels=(4, 4, 8, 8))
    elif isinstance(pipeline, diffusers.FluxPipeline):
        net = FluxControlNetModel.from_transformer(
            part, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
        )
    else:
        net = SD3ControlNetModel.from_transformer(part, num_layers=1, num_extra_conditioning_channels=0)
    with torch.no_grad():
        for weight in net.parameters():
            weight += torch.randn_like(weight) * 0.05
    net.save_pretrained(folder)
    return folder


def image_encoder(folder: Path, siglip: bool = False, seed: int = 5) -> Path:
    """CLIP's, or SigLIP's with its way of preparing pictures."""
    torch.manual_seed(seed)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    if siglip:
        SiglipVisionModel(SiglipVisionConfig(**vision)).save_pretrained(folder)
        SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        CLIPVisionModelWithProjection(CLIPVisionConfig(**vision, projection_dim=_WIDTH)).save_pretrained(folder)
    return folder


def ip_adapter(pipeline: Any, file: Path, seed: int = 6) -> Path:
    """An IP-Adapter of four tokens for this pipeline's denoiser."""
    torch.manual_seed(seed)
    if hasattr(pipeline, "unet"):
        weights = _unet_adapter(pipeline.unet)
    elif isinstance(pipeline, diffusers.FluxPipeline):
        weights = _flux_adapter(pipeline.transformer)
    else:
        weights = _sd3_adapter(pipeline.transformer)
    return write(weights, file)


def _projection(prefix: str, width: int) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.proj.weight": torch.randn(4 * width, _WIDTH) * 0.1,
        f"{prefix}.proj.bias": torch.zeros(4 * width),
        f"{prefix}.norm.weight": torch.ones(width),
        f"{prefix}.norm.bias": torch.zeros(width),
    }


def _unet_adapter(unet: Any) -> dict[str, torch.Tensor]:
    cross = unet.config.cross_attention_dim
    weights = _projection("image_proj", cross)
    for i, name in enumerate(name for name in unet.attn_processors if "attn2" in name):
        outputs = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for kind in "kv":  # as published: numbered among all attention layers, of which each second one is crossed
            weights[f"ip_adapter.{2 * i + 1}.to_{kind}_ip.weight"] = torch.randn(outputs, cross) * 0.3
    return weights


def _flux_adapter(transformer: Any) -> dict[str, torch.Tensor]:
    """Under the names of XLabs' files, the ones that are published for FLUX."""
    cross, inner = transformer.config.joint_attention_dim, transformer.inner_dim
    weights = _projection("ip_adapter_proj_model", cross)
    for i in range(transformer.config.num_layers):
        for kind in "kv":
            name = f"double_blocks.{i}.processor.ip_adapter_double_stream_{kind}_proj"
            weights[f"{name}.weight"] = torch.randn(inner, cross) * 0.3
            weights[f"{name}.bias"] = torch.zeros(inner)
    return weights


def _sd3_adapter(transformer: Any) -> dict[str, torch.Tensor]:
    config = transformer.config
    inner = config.attention_head_dim * config.num_attention_heads
    projection = IPAdapterTimeImageProjection(
        embed_dim=32, output_dim=inner, hidden_dim=64, dim_head=64, heads=1, num_queries=4, timestep_in_dim=32
    )
    weights = {f"image_proj.{name}": weight for name, weight in projection.state_dict().items()}
    for i in range(config.num_layers):
        for kind in "kv":
            weights[f"ip_adapter.{i}.to_{kind}_ip.weight"] = torch.randn(inner, inner) * 0.3
        weights[f"ip_adapter.{i}.norm_ip.linear.weight"] = torch.randn(2 * inner, 64) * 0.1
        weights[f"ip_adapter.{i}.norm_ip.linear.bias"] = torch.zeros(2 * inner)
        for norm in ("norm_q", "norm_k", "norm_ip_k"):
            weights[f"ip_adapter.{i}.{norm}.weight"] = torch.ones(config.attention_head_dim)
    return weights


def embedding(pipeline: Any, file: Path, vectors: int, seed: int = 7) -> Path:
    """A word of so many vectors for the pipeline's CLIP text encoders."""
    generator = torch.Generator().manual_seed(seed + vectors)
    names = [("emb_params", "text_encoder")]
    if hasattr(pipeline, "text_encoder_2"):
        names = [("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")]
    widths = {key: getattr(pipeline, encoder).config.hidden_size for key, encoder in names}
    return write({key: torch.randn(vectors, width, generator=generator) for key, width in widths.items()}, file)


def write(weights: dict[str, torch.Tensor], file: Path) -> Path:
    """A safetensors file, with the folders that it lies in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file)
    return file


class _Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def trap(file: Path) -> Path:
    """A pickle that leaves a marker behind when it is read. Returns the marker."""
    marker = file.with_name(f"{file.name}.was-read")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(_Trap(marker)))
    return marker


def noise(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture that is different everywhere."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def right_half(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A mask: the right half is drawn anew."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle((size[0] // 2, 0, *size), fill=255)
    return mask


def uri(image: Image.Image) -> str:
    """The picture as jobs send it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
