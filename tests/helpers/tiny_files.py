"""Tiny models as they are traded in one file: the denoiser under its trainers' names, in fp8, and in GGUF."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import gguf
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
)
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from tests.helpers import k_quants
from tests.helpers.tiny_flows import z_image_transformer
from tests.helpers.tiny_transformers import _vae16

WIDTH = 32  # of tiny FLUX and Chroma; diffusers' converters know the published one alone
_PUBLISHED_WIDTH = 3072
_CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

_FLUX = {
    r"time_text_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"time_text_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
    r"time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
    r"time_text_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"time_text_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"^context_embedder": "txt_in",
    r"^x_embedder": "img_in",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"distilled_guidance_layer\.layers\.(\d+)\.linear_1": r"distilled_guidance_layer.layers.\1.in_layer",
    r"distilled_guidance_layer\.layers\.(\d+)\.linear_2": r"distilled_guidance_layer.layers.\1.out_layer",
    r"distilled_guidance_layer\.norms\.(\d+)\.weight": r"distilled_guidance_layer.norms.\1.scale",
    r"single_transformer_blocks": "single_blocks",
    r"(?<!single_)transformer_blocks": "double_blocks",
    r"norm1\.linear": "img_mod.lin",
    r"norm1_context\.linear": "txt_mod.lin",
    r"(single_blocks\.\d+)\.norm\.linear": r"\1.modulation.lin",
    r"(single_blocks\.\d+)\.attn\.norm_q\.weight": r"\1.norm.query_norm.scale",
    r"(single_blocks\.\d+)\.attn\.norm_k\.weight": r"\1.norm.key_norm.scale",
    r"(single_blocks\.\d+)\.proj_out": r"\1.linear2",
    r"attn\.norm_q\.weight": "img_attn.norm.query_norm.scale",
    r"attn\.norm_k\.weight": "img_attn.norm.key_norm.scale",
    r"attn\.norm_added_q\.weight": "txt_attn.norm.query_norm.scale",
    r"attn\.norm_added_k\.weight": "txt_attn.norm.key_norm.scale",
    r"attn\.to_out\.0": "img_attn.proj",
    r"attn\.to_add_out": "txt_attn.proj",
    r"\.ff\.net\.0\.proj": ".img_mlp.0",
    r"\.ff\.net\.2": ".img_mlp.2",
    r"\.ff_context\.net\.0\.proj": ".txt_mlp.0",
    r"\.ff_context\.net\.2": ".txt_mlp.2",
}
_FLUX2 = {
    r"time_guidance_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"time_guidance_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"time_guidance_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"time_guidance_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"stream_modulation(\w*)\.linear": r"stream_modulation\1.lin",
    r"attn\.to_qkv_mlp_proj": "linear1",
    r"(single_transformer_blocks\.\d+)\.attn\.to_out": r"\1.linear2",
    r"\.ff\.linear_in": ".img_mlp.0",
    r"\.ff\.linear_out": ".img_mlp.2",
    r"\.ff_context\.linear_in": ".txt_mlp.0",
    r"\.ff_context\.linear_out": ".txt_mlp.2",
    **_FLUX,
}
_SD3 = {
    r"^pos_embed\.pos_embed": "pos_embed",
    r"^pos_embed\.proj": "x_embedder.proj",
    r"time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    r"time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
    r"time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"transformer_blocks": "joint_blocks",
    r"norm1\.linear": "x_block.adaLN_modulation.1",
    r"norm1_context\.linear": "context_block.adaLN_modulation.1",
    r"attn\.to_out\.0": "x_block.attn.proj",
    r"attn\.to_add_out": "context_block.attn.proj",
    r"\.ff\.net\.0\.proj": ".x_block.mlp.fc1",
    r"\.ff\.net\.2": ".x_block.mlp.fc2",
    r"\.ff_context\.net\.0\.proj": ".context_block.mlp.fc1",
    r"\.ff_context\.net\.2": ".context_block.mlp.fc2",
}
_Z_IMAGE = {
    r"^all_final_layer\.2-1": "final_layer",
    r"^all_x_embedder\.2-1": "x_embedder",
    r"attention\.to_out\.0": "attention.out",
    r"attention\.norm_q": "attention.q_norm",
    r"attention\.norm_k": "attention.k_norm",
}
_QKV = (
    (("attn.to_q", "attn.to_k", "attn.to_v"), "img_attn.qkv"),
    (
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn.qkv",
    ),
)
# Class -> names, what is joined to what (a joint of single blocks has the MLP too), and what has its halves swapped.
_LAYOUTS: dict[str, tuple[Mapping[str, str], tuple[Any, ...]]] = {
    "FluxTransformer2DModel": (_FLUX, _QKV),
    "ChromaTransformer2DModel": (_FLUX, _QKV),
    "Flux2Transformer2DModel": (_FLUX2, _QKV),
    "SD3Transformer2DModel": (
        _SD3,
        (
            (_QKV[0][0], "x_block.attn.qkv"),
            (_QKV[1][0], "context_block.attn.qkv"),
        ),
    ),
    "ZImageTransformer2DModel": (
        _Z_IMAGE,
        ((("attention.to_q", "attention.to_k", "attention.to_v"), "attention.qkv"),),
    ),
    "QwenImageTransformer2DModel": ({}, ()),
}
_SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), "linear1"


def original(transformer: Any) -> dict[str, Tensor]:
    """The weights as the code of those who trained such a model names and joins them."""
    names, joints = _LAYOUTS[type(transformer).__name__]
    weights = dict(transformer.state_dict())
    for name in [name for name in weights if _is_swapped(name, transformer)]:
        weights[name] = torch.cat(weights[name].chunk(2)[::-1])
    for parts, joint in (_SINGLE, *joints) if "Flux" in type(transformer).__name__ or joints == _QKV else joints:
        _join(weights, parts, joint)
    return {_rename(name, names): weight.contiguous() for name, weight in weights.items()}


def _is_swapped(name: str, transformer: Any) -> bool:
    """Whether a weight holds scale before shift, which the original code has the other way around."""
    if type(transformer).__name__ == "QwenImageTransformer2DModel":
        return False  # which was published in diffusers' layout
    if name.startswith("norm_out.linear."):
        return True
    last = f"transformer_blocks.{len(getattr(transformer, 'transformer_blocks', ())) - 1}.norm1_context.linear."
    return type(transformer).__name__ == "SD3Transformer2DModel" and name.startswith(last)


def _join(weights: dict[str, Tensor], parts: tuple[str, ...], joint: str) -> None:
    for name in [*weights]:
        found = re.fullmatch(rf"(.*\.)?{re.escape(parts[0])}\.(weight|bias)", name)
        each = [f"{found[1] or ''}{part}.{found[2]}" for part in parts] if found else []
        if found and all(one in weights for one in each):
            weights[f"{found[1] or ''}{joint}.{found[2]}"] = torch.cat([weights.pop(one) for one in each])


def _rename(name: str, names: Mapping[str, str]) -> str:
    for pattern, usual in names.items():
        name = re.sub(pattern, usual, name)
    return name


def write(weights: Mapping[str, Tensor], path: Path, prefix: str = "") -> Path:
    """These weights in a safetensors file."""
    save_file({f"{prefix}{name}": weight.clone() for name, weight in weights.items()}, path)
    return path


@dataclass(frozen=True)
class Kit:
    """A base model, other weights for its denoiser, and what plain diffusers draws with these."""

    base: Path
    transformer: Any
    drawn: Image


def convert_narrow_models(patch: pytest.MonkeyPatch, width: int = WIDTH) -> None:
    """Have diffusers' converters of FLUX and Chroma split what is as wide as the tiny models, not as the published."""
    for kind in ("FluxTransformer2DModel", "ChromaTransformer2DModel"):
        entry = SINGLE_FILE_LOADABLE_CLASSES[kind]
        function: Any = entry["checkpoint_mapping_fn"]
        code: CodeType = function.__code__
        assert _PUBLISHED_WIDTH in code.co_consts
        constants = tuple(width if one == _PUBLISHED_WIDTH else one for one in code.co_consts)
        narrow = FunctionType(code.replace(co_consts=constants), function.__globals__)
        patch.setitem(SINGLE_FILE_LOADABLE_CLASSES, kind, {**entry, "checkpoint_mapping_fn": narrow})


def qwen_tokenizer() -> Qwen2Tokenizer:
    """One token a letter, and a chat that is its messages."""
    letters = {chr(code): code - 33 for code in range(33, 127)} | {"Ġ": 94, "Ċ": 95}
    tokens = Qwen2Tokenizer(vocab=letters | {"<|endoftext|>": 96, "<|im_start|>": 97, "<|im_end|>": 98}, merges=[])
    tokens.chat_template = _CHAT
    return tokens


def _qwen3(layers: int) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=layers,
            vocab_size=99,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
        )
    )


def z_image() -> ZImagePipeline:
    """Z-Image: one stream of text and picture."""
    torch.manual_seed(0)
    return ZImagePipeline(
        transformer=z_image_transformer(in_channels=16, axes_dims=[8, 4, 4]),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae16(),
        text_encoder=_qwen3(2).model,
        tokenizer=qwen_tokenizer(),
    )


def flux2() -> Flux2KleinPipeline:
    """FLUX.2 klein: layers 9, 18 and 27 of its text encoder are read."""
    torch.manual_seed(0)
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
        ),
        text_encoder=_qwen3(28),
        tokenizer=qwen_tokenizer(),
    )


def reseed(transformer: Any) -> Any:
    """A denoiser of the same config with other weights, such that what it draws is no plain colour."""
    torch.manual_seed(5)
    other = type(transformer).from_config(transformer.config)
    for name, weight in other.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm" in name and weight.ndim == 1), std=0.1)
    return other


def scale(weights: Mapping[str, Tensor], form: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """These weights in fp8 with a scale beside each matrix, in one of the forms that are about; and what they mean."""
    stored, meant = dict(weights), dict(weights)
    for name in [name for name, weight in weights.items() if weight.ndim == 2 and name.endswith(".weight")]:
        weight, by_row = weights[name], form == "a scale for each row"
        largest = weight.abs().amax(1, keepdim=True) if by_row else weight.abs().max().reshape(1, 1)
        factor = largest / 400
        stored[name] = (weight / factor).to(torch.float8_e4m3fn)
        meant[name] = stored[name].float() * factor
        kind = "scale_weight" if form == "scale_weight" else "weight_scale"
        stored[f"{name.removesuffix('weight')}{kind}"] = factor[:, 0] if by_row else factor.reshape(())
    return stored, meant


def write_gguf(
    weights: Mapping[str, Tensor], path: Path, packing: str = "Q8_0", prefix: str = "", tokens: bool = False
) -> Path:
    """These weights in a GGUF file, matrices packed as far as their rows allow it.

    Args:
        tokens: pack what else has rows too, such as tokens and positions.
    """
    kind = gguf.GGMLQuantizationType[packing]
    writer = gguf.GGUFWriter(path, "flux")
    for name, weight in weights.items():
        values = weight.float().numpy()
        if (
            weight.ndim > 1
            and (tokens or name.endswith(".weight"))
            and weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        ):
            packed = k_quants.pack(values, packing) if packing.endswith("_K") else gguf.quants.quantize(values, kind)
            writer.add_tensor(f"{prefix}{name}", packed, raw_dtype=kind)
        else:
            writer.add_tensor(f"{prefix}{name}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
