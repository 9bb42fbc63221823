"""Checkpoints in the original code's layout, sparse: the real names and shapes of every tensor, at full size.

Each tensor is zero except for its first number, its mark, which no other tensor has. So 7 GB take a few MB of disk,
and every weight can be followed to its place.
"""

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import diffusers
import numpy
import torch

Shapes = dict[str, tuple[int, ...]]
LAST_NORM_BIAS = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
VAE_LAST_BIAS = "first_stage_model.decoder.conv_out.bias"


# The original code's layout: CompVis/stable-diffusion, Stability-AI/stablediffusion and generative-models.


def layer(name: str, out: int, *inputs: int) -> Shapes:
    """Weight and bias of a convolution, a linear layer or (without inputs) a norm."""
    return {f"{name}.weight": (out, *inputs), f"{name}.bias": (out,)}


def under(prefix: str, *parts: Shapes) -> Shapes:
    return {prefix + name: shape for part in parts for name, shape in part.items()}


def residual(channels: int, out: int, embedding: int) -> Shapes:
    shapes = layer("in_layers.0", channels) | layer("in_layers.2", out, channels, 3, 3)
    shapes |= layer("emb_layers.1", out, embedding) | layer("out_layers.0", out) | layer("out_layers.3", out, out, 3, 3)
    return shapes | (layer("skip_connection", out, channels, 1, 1) if channels != out else {})


def transformer(c: int, depth: int, context: int, linear: bool) -> Shapes:
    kernel = () if linear else (1, 1)
    shapes = layer("norm", c) | layer("proj_in", c, c, *kernel) | layer("proj_out", c, c, *kernel)
    block = layer("ff.net.0.proj", 8 * c, c) | layer("ff.net.2", c, 4 * c)
    for attention, width in (("attn1", c), ("attn2", context)):
        block |= {f"{attention}.to_q.weight": (c, c), f"{attention}.to_k.weight": (c, width)}
        block |= {f"{attention}.to_v.weight": (c, width)} | layer(f"{attention}.to_out.0", c, c)
    block |= layer("norm1", c) | layer("norm2", c) | layer("norm3", c)
    return shapes | under("", *(under(f"transformer_blocks.{i}.", block) for i in range(depth)))


def unet(
    widths: list[int],
    depths: list[int],
    context: int,
    linear: bool,
    classes: int = 0,
    inputs: int = 4,
    middle: int | None = None,
) -> Shapes:
    """The UNet; `depths` are the transformer layers of each level, `middle` those between, by default the last's."""
    ch, embedding = widths[0], 4 * widths[0]
    shapes = layer("time_embed.0", embedding, ch) | layer("time_embed.2", embedding, embedding)
    if classes:
        shapes |= layer("label_emb.0.0", embedding, classes) | layer("label_emb.0.2", embedding, embedding)
    shapes |= layer("input_blocks.0.0", ch, inputs, 3, 3)
    index, skips = 1, [ch]
    for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(2):
            shapes |= under(f"input_blocks.{index}.0.", residual(ch, width, embedding))
            if depth:
                shapes |= under(f"input_blocks.{index}.1.", transformer(width, depth, context, linear))
            ch, index = width, index + 1
            skips.append(ch)
        if level < len(widths) - 1:
            shapes |= layer(f"input_blocks.{index}.0.op", ch, ch, 3, 3)
            index += 1
            skips.append(ch)
    deepest = middle or depths[-1] or 1
    shapes |= under("middle_block.0.", residual(ch, ch, embedding))
    shapes |= under("middle_block.1.", transformer(ch, deepest, context, linear))
    shapes |= under("middle_block.2.", residual(ch, ch, embedding))
    index = 0
    for level, (width, depth) in reversed(list(enumerate(zip(widths, depths, strict=True)))):
        for i in range(3):
            shapes |= under(f"output_blocks.{index}.0.", residual(ch + skips.pop(), width, embedding))
            if depth:
                shapes |= under(f"output_blocks.{index}.1.", transformer(width, depth, context, linear))
            if level and i == 2:
                shapes |= layer(f"output_blocks.{index}.{2 if depth else 1}.conv", width, width, 3, 3)
            ch, index = width, index + 1
    return under("model.diffusion_model.", shapes, layer("out.0", ch), layer("out.2", 4, ch, 3, 3))


def controlnet(unet: Shapes) -> Shapes:
    """The ControlNet of a UNet, as lllyasviel/ControlNet has it."""
    own = {name.removeprefix("model.diffusion_model."): shape for name, shape in unet.items()}
    kept = ("time_embed", "label_emb", "input_blocks", "middle_block")
    shapes = {name: shape for name, shape in own.items() if name.startswith(kept)}
    for index in range(1 + max(int(name.split(".")[1]) for name in own if name.startswith("input_blocks."))):
        block = ("0.weight", "0.op.weight", "0.out_layers.3.weight")
        width = next(own[name][0] for part in block if (name := f"input_blocks.{index}.{part}") in own)
        shapes |= layer(f"zero_convs.{index}.0", width, width, 1, 1)
    deepest = own["middle_block.0.in_layers.2.weight"][0]
    shapes |= layer("middle_block_out.0", deepest, deepest, 1, 1)
    hints = (3, 16, 16, 32, 32, 96, 96, 256, own["input_blocks.0.0.weight"][0])
    for number, (inputs, out) in enumerate(pairwise(hints)):
        shapes |= layer(f"input_hint_block.{2 * number}", out, inputs, 3, 3)
    return under("control_model.", shapes)


def vae() -> Shapes:
    def block(channels: int, out: int) -> Shapes:
        shapes = layer("norm1", channels) | layer("conv1", out, channels, 3, 3)
        shapes |= layer("norm2", out) | layer("conv2", out, out, 3, 3)
        return shapes | (layer("nin_shortcut", out, channels, 1, 1) if channels != out else {})

    attention = layer("norm", 512) | under("", *(layer(name, 512, 512, 1, 1) for name in ("q", "k", "v", "proj_out")))
    mid = under("mid.block_1.", block(512, 512)) | under("mid.attn_1.", attention)
    mid |= under("mid.block_2.", block(512, 512))
    widths = [128, 256, 512, 512]
    encoder, ch = layer("conv_in", 128, 3, 3, 3) | layer("norm_out", 512) | layer("conv_out", 8, 512, 3, 3), 128
    for level, width in enumerate(widths):
        encoder |= under(f"down.{level}.block.0.", block(ch, width)) | under(
            f"down.{level}.block.1.", block(width, width)
        )
        encoder |= layer(f"down.{level}.downsample.conv", width, width, 3, 3) if level < 3 else {}
        ch = width
    decoder, ch = layer("conv_in", 512, 4, 3, 3) | layer("norm_out", 128) | layer("conv_out", 3, 128, 3, 3), 512
    for level, width in reversed(list(enumerate(widths))):
        for i in range(3):
            decoder |= under(f"up.{level}.block.{i}.", block(width if i else ch, width))
        decoder |= layer(f"up.{level}.upsample.conv", width, width, 3, 3) if level else {}
        ch = width
    shapes = under("encoder.", encoder, mid) | under("decoder.", decoder, mid)
    return under("first_stage_model.", shapes, layer("quant_conv", 8, 8, 1, 1), layer("post_quant_conv", 4, 4, 1, 1))


def clip() -> Shapes:
    """OpenAI's ViT-L/14 text encoder, as transformers names it."""
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (49408, 768),
        "embeddings.position_embedding.weight": (77, 768),
    }
    for i in range(12):
        block = layer("layer_norm1", 768) | layer("layer_norm2", 768)
        block |= layer("mlp.fc1", 3072, 768) | layer("mlp.fc2", 768, 3072)
        block |= under("self_attn.", *(layer(f"{name}_proj", 768, 768) for name in ("q", "k", "v", "out")))
        shapes |= under(f"encoder.layers.{i}.", block)
    return under("transformer.text_model.", shapes, layer("final_layer_norm", 768))


def open_clip(d: int, layers: int) -> Shapes:
    """OpenCLIP's text encoder: ViT-H/14 is (1024, 24), ViT-bigG/14 is (1280, 32)."""
    shapes: Shapes = {"positional_embedding": (77, d), "text_projection": (d, d), "token_embedding.weight": (49408, d)}
    shapes |= layer("ln_final", d) | {"logit_scale": ()}
    for i in range(layers):
        block: Shapes = {"attn.in_proj_weight": (3 * d, d), "attn.in_proj_bias": (3 * d,)}
        block |= layer("attn.out_proj", d, d) | layer("mlp.c_fc", 4 * d, d) | layer("mlp.c_proj", d, 4 * d)
        shapes |= under(f"transformer.resblocks.{i}.", block, layer("ln_1", d), layer("ln_2", d))
    return under("model.", shapes)


def sd1(inputs: int = 4) -> Shapes:
    text = under("cond_stage_model.", clip(), {"transformer.text_model.embeddings.position_ids": (1, 77)})
    shapes = unet([320, 640, 1280, 1280], [1, 1, 1, 0], 768, linear=False, inputs=inputs)
    return shapes | vae() | text | {"alphas_cumprod": (1000,)}


def sd2(inputs: int = 4, classes: int = 0) -> Shapes:
    shapes = unet([320, 640, 1280, 1280], [1, 1, 1, 0], 1024, linear=True, inputs=inputs, classes=classes)
    return shapes | vae() | under("cond_stage_model.", open_clip(1024, 24))


def sdxl(inputs: int = 4) -> Shapes:
    shapes = unet([320, 640, 1280], [0, 2, 10], 2048, linear=True, classes=2816, inputs=inputs)
    text = under("conditioner.embedders.0.", clip()) | under("conditioner.embedders.1.", open_clip(1280, 32))
    return shapes | vae() | text


def refiner() -> Shapes:
    """Stable Diffusion XL's refiner, which has the second text encoder only."""
    shapes = unet([384, 768, 1536, 1536], [0, 4, 4, 0], 1280, linear=True, classes=2560, middle=4)
    return shapes | vae() | under("conditioner.embedders.0.", open_clip(1280, 32))


LAYOUTS: dict[str, Callable[[], Shapes]] = {"sd1": sd1, "sd2": sd2, "sdxl": sdxl, "refiner": refiner}


# Sparse files with marks.


def marks(shapes: Shapes) -> dict[str, list[tuple[int, int]]]:
    """Tensor -> (offset in elements, bits of the fp16 number there); a joined q, k, v weight has one mark for each."""
    found: dict[str, list[tuple[int, int]]] = {}
    next_mark = 1
    for name, shape in shapes.items():
        parts = 3 if "in_proj" in name else 1
        found[name] = [(i * math.prod(shape) // parts, next_mark + i) for i in range(parts)]
        next_mark += parts
    return found


def write(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None, **values: list[float]) -> Path:
    """A file of fp16 tensors: zeros, in a tensor that `values` names its first numbers, and over these the marks."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    ends = numpy.cumsum([2 * math.prod(shape) for shape in shapes.values()]).tolist()
    starts = dict(zip(shapes, [0, *ends], strict=False))
    for (name, shape), end in zip(shapes.items(), ends, strict=True):
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [starts[name], end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        body = file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(body + ends[-1])
        for name, numbers in values.items():
            file.seek(body + starts[name])
            file.write(numpy.array(numbers, numpy.float16).tobytes())
        for name, places in marks(shapes).items():
            for offset, bits in places if math.prod(shapes[name]) else ():
                file.seek(body + starts[name] + 2 * offset)
                file.write(bits.to_bytes(2, "little"))
    return path


def loaded_marks(pipeline: diffusers.DiffusionPipeline) -> dict[str, int]:
    """component.weight -> the mark that arrived there."""
    found = {}
    for component, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            for name, weight in module.named_parameters():
                bits = weight.detach().flatten()[:1].view(torch.int16).item()
                found[f"{component}.{name.removeprefix('text_model.')}"] = bits
    return found
