"""What builds the parts of published models, from the numbers of their published configs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLHunyuanImage,
    ErnieImageTransformer2DModel,
    Flux2Transformer2DModel,
    HunyuanImageTransformer2DModel,
    Kandinsky5Transformer3DModel,
    LongCatImageTransformer2DModel,
    SD3Transformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Ministral3Config,
    Ministral3ForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Mistral3Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    T5Config,
    T5EncoderModel,
)

CONFIGS = Path(__file__).parents[1] / "worker" / "engine" / "load" / "configs"

Make = Callable[[], Any]

_QWEN3 = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 36}
_MINISTRAL = {
    "vocab_size": 131072,
    "hidden_size": 3072,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
_PIXTRAL = {"model_type": "pixtral", "patch_size": 14, "image_size": 1540}


def clip(folder: str, name: str, kind: Any = CLIPTextModel) -> Make:
    """One whose config this worker has."""
    return lambda: kind(CLIPTextConfig.from_pretrained(CONFIGS / folder / name))


def from_config(kind: Any, folder: str, name: str) -> Make:
    """A part of diffusers' whose config this worker has."""
    return lambda: kind.from_config(kind.load_config(CONFIGS / folder / name))


CLIP_L, CLIP_G = clip("sdxl", "text_encoder"), clip("sdxl", "text_encoder_2", CLIPTextModelWithProjection)


def t5() -> Any:
    """T5-XXL's encoder."""
    shape = {"vocab_size": 32128, "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64}
    return T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu"))


def glyph_byt5() -> Any:
    """ByT5's small encoder, with words for fonts and colours."""
    shape = {"vocab_size": 1510, "d_model": 1472, "d_ff": 3584, "d_kv": 64, "num_layers": 12, "num_heads": 6}
    return T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu"))


def gemma2() -> Any:
    """Gemma 2 of 2 B, without the layer that names the next word."""
    return Gemma2Model(Gemma2Config())


def qwen3(hidden: int, intermediate: int, tied: bool) -> Make:
    """Qwen3 of 4 or 8 B."""
    config = {"hidden_size": hidden, "intermediate_size": intermediate, "tie_word_embeddings": tied}
    return lambda: Qwen3ForCausalLM(Qwen3Config(**config, **_QWEN3))


def qwen_vl() -> Any:
    """Qwen2.5-VL of 7 B."""
    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl_4b() -> Any:
    """Qwen3-VL of 4 B, without the layer that names the next word."""
    text = {"hidden_size": 2560, "intermediate_size": 9728, **_QWEN3}
    vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560}
    config = Qwen3VLConfig(text_config=text, vision_config={**vision, "deepstack_visual_indexes": [5, 11, 17]})
    return Qwen3VLModel(config)


def qwen3_vl_8b() -> Any:
    """Qwen3-VL of 8 B."""
    text = {"hidden_size": 4096, "intermediate_size": 12288, **_QWEN3}
    config = Qwen3VLConfig(text_config=text, vision_config={"out_hidden_size": 4096}, tie_word_embeddings=False)
    return Qwen3VLForConditionalGeneration(config)


def mistral() -> Any:
    """Mistral Small 3 of 24 B."""
    text = {
        "model_type": "mistral",
        "vocab_size": 131072,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=_PIXTRAL, tie_word_embeddings=False)
    )


def ministral() -> Any:
    """Ministral 3 of 3 B with its sight, without the layer that names the next word."""
    return Mistral3Model(Mistral3Config(text_config={"model_type": "mistral", **_MINISTRAL}, vision_config=_PIXTRAL))


def ministral_writer() -> Any:
    """Ministral 3 of 3 B without its sight."""
    return Ministral3ForCausalLM(Ministral3Config(**_MINISTRAL, tie_word_embeddings=True))


def vae16() -> Any:
    """That of FLUX.1 and Z-Image; Stable Diffusion 3 has another scale of the same size."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        sample_size=1024,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def dc_ae() -> Any:
    """That of Sana, whose latents are 32 pixels wide."""
    kinds = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    ways = {"downsample_block_type": "conv", "upsample_block_type": "interpolate"}
    return AutoencoderDC(encoder_block_types=kinds, decoder_block_types=kinds, **ways, scaling_factor=0.41407)


def hunyuan_vae() -> Any:
    """That of HunyuanImage 2.1, whose latents are 32 pixels wide."""
    return AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=64,
        block_out_channels=(128, 256, 512, 512, 1024, 1024),
        layers_per_block=2,
        spatial_compression_ratio=32,
        sample_size=384,
        scaling_factor=0.75289,
    )


def klein(double: int, single: int, heads: int, text: int) -> Make:
    """FLUX.2 klein's transformer."""
    return lambda: Flux2Transformer2DModel(
        num_layers=double,
        num_single_layers=single,
        num_attention_heads=heads,
        joint_attention_dim=text,
        guidance_embeds=False,
    )


def sd35(layers: int, positions: int, dual_attention_layers: tuple[int, ...] = ()) -> Make:
    """Stable Diffusion 3.5's transformer, as many heads as layers."""
    return lambda: SD3Transformer2DModel(
        sample_size=128,
        num_layers=layers,
        num_attention_heads=layers,
        attention_head_dim=64,
        caption_projection_dim=64 * layers,
        joint_attention_dim=4096,
        pooled_projection_dim=2048,
        pos_embed_max_size=positions,
        qk_norm="rms_norm",
        dual_attention_layers=dual_attention_layers,
    )


def longcat() -> Any:
    """LongCat-Image's transformer."""
    return LongCatImageTransformer2DModel(num_layers=10, num_single_layers=20)


def hunyuan() -> Any:
    """HunyuanImage 2.1's transformer."""
    return HunyuanImageTransformer2DModel(text_embed_2_dim=1472)


def ernie() -> Any:
    """ERNIE-Image's transformer."""
    return ErnieImageTransformer2DModel(
        hidden_size=4096, num_attention_heads=32, num_layers=36, ffn_hidden_size=12288, text_in_dim=3072
    )


def kandinsky5() -> Any:
    """Kandinsky 5's transformer for pictures."""
    return Kandinsky5Transformer3DModel(
        in_visual_dim=16,
        out_visual_dim=16,
        model_dim=2560,
        ff_dim=10240,
        num_visual_blocks=50,
        axes_dims=(32, 48, 48),
    )
