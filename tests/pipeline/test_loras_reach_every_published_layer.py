"""Every layer of the published Stable Diffusion XL and FLUX is found under the names of their own code."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, StableDiffusionXLPipeline, UNet2DConditionModel

from worker.engine.adapters.lora_targets import Targets

# Blocks of the UNet with attention -> how many transformer blocks are in it.
ATTENTION = {"input_blocks": {4: 2, 5: 2, 7: 10, 8: 10}, "output_blocks": {0: 10, 1: 10, 2: 10, 3: 2, 4: 2, 5: 2}}
RESIDUAL = ("in_layers_2", "emb_layers_1", "out_layers_3")


def xl_attention() -> Iterator[str]:
    """The 722 layers that kohya's scripts train by default."""
    blocks = [(f"{side}_{i}_1", depth) for side, found in ATTENTION.items() for i, depth in found.items()]
    for block, depth in [*blocks, ("middle_block_1", 10)]:
        yield from (f"{block}_proj_in", f"{block}_proj_out")
        for i in range(depth):
            inside = f"{block}_transformer_blocks_{i}"
            yield from (f"{inside}_{one}_to_{part}" for one in ("attn1", "attn2") for part in ("q", "k", "v", "out_0"))
            yield from (f"{inside}_ff_net_0_proj", f"{inside}_ff_net_2")


def xl_rest() -> Iterator[str]:
    """Its convolutions, and what conditions it."""
    for i in (1, 2, 4, 5, 7, 8):
        yield from (f"input_blocks_{i}_0_{part}" for part in RESIDUAL)
    for i in range(9):
        yield from (f"output_blocks_{i}_0_{part}" for part in (*RESIDUAL, "skip_connection"))
    for i in (0, 2):
        yield from (f"middle_block_{i}_{part}" for part in RESIDUAL)
    yield from ("input_blocks_4_0_skip_connection", "input_blocks_7_0_skip_connection")
    yield from ("input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv")
    yield from ("time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2", "out_2", "input_blocks_0_0")


def flux_rows() -> dict[str, int]:
    """Layer of FLUX -> its outputs."""
    rows = {}
    for i in range(19):
        for side in ("img", "txt"):
            block = f"double_blocks_{i}_{side}"
            rows |= {f"{block}_attn_qkv": 9216, f"{block}_attn_proj": 3072, f"{block}_mod_lin": 18432}
            rows |= {f"{block}_mlp_0": 12288, f"{block}_mlp_2": 3072}
    for i in range(38):
        block = f"single_blocks_{i}"
        rows |= {f"{block}_linear1": 21504, f"{block}_linear2": 3072, f"{block}_modulation_lin": 9216}
    ends = (
        "img_in",
        "txt_in",
        *(f"{one}_in_{side}_layer" for one in ("time", "vector", "guidance") for side in ("in", "out")),
    )
    return rows | dict.fromkeys(ends, 3072) | {"final_layer_linear": 64, "final_layer_adaLN_modulation_1": 6144}


def around(kind: Any, **parts: Any) -> Targets:
    """What of a pipeline with these parts alone LoRAs can act on."""
    needed = [name for name in kind.__init__.__annotations__ if name not in ("return", "force_zeros_for_empty_prompt")]
    options = {name: parts.get(name) for name in needed if name not in ("add_watermarker",)}
    return Targets(kind(**options))


@pytest.fixture(scope="module")
def xl() -> Targets:
    """Stable Diffusion XL, without its weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    return around(StableDiffusionXLPipeline, unet=unet)


def test_of_stable_diffusion_xl(xl: Targets) -> None:
    names = [f"lora_unet_{name}" for name in (*xl_attention(), *xl_rest())]

    found = xl.find(dict.fromkeys(names, 4))

    assert len(list(xl_attention())) == 722
    assert found.keys() == set(names)
    assert {("unet", target.layer) for targets in found.values() for target in targets} == xl.modules.keys()


@pytest.mark.parametrize("spelling", ["kohya", "dots"])
def test_of_flux(spelling: str) -> None:
    with torch.device("meta"):
        flux = around(FluxPipeline, transformer=FluxTransformer2DModel(guidance_embeds=True))
    rows = {f"lora_unet_{name}": count for name, count in flux_rows().items()}
    if spelling == "dots":
        rows = {_dotted(name): count for name, count in flux_rows().items()}

    found = flux.find(rows)

    assert found.keys() == rows.keys()
    assert {("transformer", target.layer) for targets in found.values() for target in targets} == flux.modules.keys()
    for name, targets in found.items():
        taken = [torch.arange(rows[name]) if target.rows is None else target.rows for target in targets]
        assert torch.cat(taken).sort().values.equal(torch.arange(rows[name])), "each output once"


def _dotted(name: str) -> str:
    """As ComfyUI has it: dots around numbers and between modules."""
    for module in ("img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod", "modulation", "final_layer"):
        name = name.replace(f"{module}_", f"{module}.").replace(f"_{module}.", f".{module}.")
    for block in ("double_blocks", "single_blocks"):
        name = (
            name.replace(f"{block}_", f"{block}.").replace("_linear", ".linear").replace("_modulation", ".modulation")
        )
    return "diffusion_model." + name.replace("_in_in_", "_in.in_").replace("_in_out_", "_in.out_")
