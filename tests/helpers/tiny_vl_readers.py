"""The same of those whose prompts Qwen3-VL reads, which sees pictures too."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers import (
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
)

from tests.helpers.tiny_flows import SMALL_TEXT, _vae_flux2, letters


def without_videos(kind: Any) -> Any:
    """The processor's class without the part that would need torchvision."""
    names = [name for name in kind.get_attributes() if name != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: names), "__module__": kind.__module__})


def _vae_qwen() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def _qwen3_vl(tokens: Any, layers: int, heads: int = 2) -> Qwen3VLConfig:
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "num_hidden_layers": layers,
            "rope_parameters": rope,
            "pad_token_id": 0,
            **SMALL_TEXT,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
        },
        vision_config={**sight, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    )


def krea2(is_distilled: bool = False) -> Krea2Pipeline:
    """Krea 2: some layers of a Qwen3-VL encoder, which another small transformer reads first."""
    torch.manual_seed(0)
    tokens = letters()
    return Krea2Pipeline(
        transformer=Krea2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=16,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=16,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae_qwen(),
        text_encoder=Qwen3VLModel(_qwen3_vl(tokens, layers=2)),
        tokenizer=tokens,
        text_encoder_select_layers=[1, 2],
        is_distilled=is_distilled,
    )


def _ideogram4_transformer() -> Ideogram4Transformer2DModel:
    return Ideogram4Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        intermediate_size=16,
        adaln_dim=16,
        llm_features_dim=13 * 16,
        mrope_section=(4, 2, 2),
    )


def ideogram4() -> Ideogram4Pipeline:
    """Ideogram 4: two transformers, the second without a prompt, and a guidance scale for each of 48 steps."""
    torch.manual_seed(0)
    tokens = letters(template="{% for m in messages %}{{ m.content[0].text }}<|im_end|>{% endfor %}")
    return Ideogram4Pipeline(
        transformer=_ideogram4_transformer(),
        unconditional_transformer=_ideogram4_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae_flux2(),
        text_encoder=Qwen3VLModel(_qwen3_vl(tokens, layers=36, heads=1)),
        tokenizer=tokens,
    )


def qwen21_transformer() -> QwenImage21Transformer2DModel:
    """That of Qwen-Image 2.1."""
    return QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=16,
        axes_dims_rope=(4, 6, 6),
    )


def qwen21_vae() -> AutoencoderKLQwenImage21:
    """That of Qwen-Image 2.1, which draws sixteen pixels a latent."""
    return AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def qwen_image21() -> QwenImage21Pipeline:
    """Qwen-Image 2.1: a processor hands the prompt to Qwen3-VL; its VAE draws sixteen pixels a latent."""
    torch.manual_seed(0)
    template = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content[0].text }}<|im_end|>{% endfor %}"
    tokens = letters("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", template=template)
    processor = without_videos(Qwen3VLProcessor)(
        image_processor=Qwen2VLImageProcessorPil(patch_size=16), tokenizer=tokens, chat_template=template
    )
    return QwenImage21Pipeline(
        transformer=qwen21_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen21_vae(),
        text_encoder=Qwen3VLForConditionalGeneration(_qwen3_vl(tokens, layers=2)),
        processor=processor,
        sample_sigmas=[1.0, 0.7, 0.4],
    )
