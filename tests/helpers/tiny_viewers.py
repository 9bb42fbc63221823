"""Tiny pipelines of further models that edit, most of them by a language model that sees the pictures."""

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    LongCatImageEditPipeline,
    QwenImage21Pipeline,
    ZImageOmniPipeline,
)
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

from tests.helpers import tiny_editors
from tests.helpers.tiny_flows import z_image_transformer
from tests.helpers.tiny_models import _vae
from tests.helpers.tiny_readers import longcat_transformer
from tests.helpers.tiny_transformers import _vae16
from tests.helpers.tiny_vl_readers import qwen21_transformer, qwen21_vae

_SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
_TEXT: dict[str, Any] = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8}
_SIGHT = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}


def flux2() -> Flux2Pipeline:
    """FLUX.2 dev: Mistral 3 reads the prompt; of its processor this is the tokenizer."""
    made, tokens = tiny_editors.klein(), tiny_editors.tokenizer()
    tokens.chat_template = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    reading = {"model_type": "mistral", "vocab_size": len(tokens), "num_hidden_layers": 30, **_TEXT}
    seeing = {"model_type": "pixtral", "image_size": 28, "patch_size": 14, "num_hidden_layers": 1, **_SMALL}
    config = Mistral3Config(text_config=reading, vision_config=seeing, image_token_index=len(tokens) - 1)
    return Flux2Pipeline(
        transformer=Flux2Transformer2DModel.from_config(made.transformer.config, guidance_embeds=True),
        scheduler=made.scheduler,
        vae=made.vae,
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=tokens,
    )


def qwen_image21() -> QwenImage21Pipeline:
    """Qwen-Image 2.1: Qwen3-VL sees the pictures; its VAE knows transparency."""
    torch.manual_seed(0)
    tokens = tiny_editors.tokenizer()
    said = "<|im_start|>{{ m.role }}\n{{ m.content[0].text }}<|im_end|>\n"
    tokens.chat_template = f"{{% for m in messages %}}{said}{{% endfor %}}"
    parts = Qwen2VLImageProcessor(patch_size=16, min_pixels=32**2, max_pixels=4096**2), tokens
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
    reading = {"vocab_size": len(tokens), "num_hidden_layers": 2, "rope_parameters": rope, "pad_token_id": 0, **_TEXT}
    names = tiny_editors.vision_tokens(tokens)
    config = Qwen3VLConfig(
        text_config=reading,
        vision_config={**_SIGHT, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        **names,
    )
    return QwenImage21Pipeline(
        transformer=qwen21_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen21_vae(),
        text_encoder=Qwen3VLForConditionalGeneration(config),
        processor=tiny_editors.without_videos(Qwen3VLProcessor)(*parts, chat_template=tokens.chat_template),
    )


def longcat_edit() -> LongCatImageEditPipeline:
    """LongCat-Image-Edit: its language model sees the picture; it draws a million pixels, whatever is asked."""
    made = tiny_editors.qwen_edit()
    return LongCatImageEditPipeline(
        transformer=longcat_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae16(),
        text_encoder=made.text_encoder,
        tokenizer=made.tokenizer,
        text_processor=made.processor,
    )


def z_image_omni() -> ZImageOmniPipeline:
    """Z-Image Omni: SigLIP sees the pictures, and the VAE."""
    torch.manual_seed(0)
    tokens = tiny_editors.tokenizer()
    return ZImageOmniPipeline(
        transformer=z_image_transformer(siglip_feat_dim=16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=_vae(latent_channels=4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=Qwen3Model(Qwen3Config(vocab_size=len(tokens), num_hidden_layers=2, **_TEXT)),
        tokenizer=tokens,
        siglip=Siglip2VisionModel(Siglip2VisionConfig(**_SMALL, num_hidden_layers=1, num_patches=16, patch_size=16)),
        siglip_processor=Siglip2ImageProcessor(patch_size=16, max_num_patches=16),
    )
