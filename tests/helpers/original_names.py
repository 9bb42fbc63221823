"""diffusers' names of tensors -> those of the original code, for models of any size: what converters do, backwards."""

import re
from typing import Any

import torch

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}


def of_unet(name: str, unet: Any) -> str:
    """A tensor of a UNet or a ControlNet, without what stands before all of them in a file."""
    module, _, kind = name.rpartition(".")
    if module in _UNET:
        return f"{_UNET[module]}.{kind}"
    if match := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)", module):
        return f"input_hint_block.{2 * int(match[1]) + 2}.{kind}"
    if match := re.fullmatch(r"controlnet_down_blocks\.(\d+)", module):
        return f"zero_convs.{match[1]}.0.{kind}"
    layers = unet.config["layers_per_block"]
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 2 * int(match[2]) + (match[1] == "attentions")
        return f"middle_block.{place}.{_inside(match[1], match[3])}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert match, name
    level, part, index, rest = int(match[2]), match[3], int(match[4]), match[5]
    if match[1] == "down":
        at = 1 + level * (layers + 1) + (layers if part == "downsamplers" else index)
        return f"input_blocks.{at}.{_place(part)}.{_inside(part, rest)}"
    at = level * (layers + 1) + (layers if part == "upsamplers" else index)
    attends = "CrossAttn" in unet.config["up_block_types"][level]
    sampler = f"{2 if attends else 1}.{rest}"
    return f"output_blocks.{at}.{sampler if part == 'upsamplers' else f'{_place(part)}.{_inside(part, rest)}'}"


def _place(part: str) -> int:
    return 1 if part == "attentions" else 0


def _inside(part: str, rest: str) -> str:
    if part == "downsamplers":
        return rest.replace("conv.", "op.")
    if part == "resnets":
        module, _, kind = rest.partition(".")
        return f"{_RESNET[module]}.{kind}"
    return rest


def of_vae(name: str, levels: int) -> str:
    """A tensor of a VAE with so many levels of resolution."""
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{levels - 1 - int(found[1])}.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{levels - 1 - int(found[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("attn_1.group_norm", "attn_1.norm").replace("attn_1.to_out.0", "attn_1.proj_out")
    return re.sub(r"attn_1\.to_([qkv])", r"attn_1.\1", name).replace("conv_norm_out", "norm_out")


def vae_weights(vae: Any) -> dict[str, torch.Tensor]:
    """A VAE as the original code has it; its attention consists of convolutions."""
    levels = len(vae.config.block_out_channels)
    renamed = {of_vae(name, levels): weight for name, weight in vae.state_dict().items()}
    linear = re.compile(r"mid\.attn_1\.(q|k|v|proj_out)\.weight")
    return {name: weight[..., None, None] if linear.search(name) else weight for name, weight in renamed.items()}


def unet_weights(unet: Any, prefix: str) -> dict[str, torch.Tensor]:
    """A UNet or a ControlNet as the original code has it, with this before each name."""
    return {prefix + of_unet(name, unet): weight for name, weight in unet.state_dict().items()}


def checkpoint_weights(pipeline: Any) -> dict[str, torch.Tensor]:
    """Stable Diffusion 1.x as the original code has it."""
    text = {name.removeprefix("text_model."): weight for name, weight in pipeline.text_encoder.state_dict().items()}
    return {
        **unet_weights(pipeline.unet, "model.diffusion_model."),
        **{f"first_stage_model.{name}": weight for name, weight in vae_weights(pipeline.vae).items()},
        **{f"cond_stage_model.transformer.text_model.{name}": weight for name, weight in text.items()},
    }
