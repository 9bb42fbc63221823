"""Tiny pipelines of the transformers of today, whose prompts a language model reads; each with its real classes."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Mistral3Model,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from tests.helpers.tiny_models import _vae, wake

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
SMALL_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def letters(*special: str, template: str = TEMPLATE) -> Qwen2Tokenizer:
    """A byte-level tokenizer without merges, as Qwen's models have it: one token a letter."""
    vocabulary = {chr(code): code - 33 for code in range(33, 127)} | {"Ġ": 94, "Ċ": 95}
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special):
        vocabulary[token] = len(vocabulary)
    tokens = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=list(special))
    tokens.chat_template = template
    return tokens


def _qwen3(tokens: Any, layers: int) -> Qwen3Config:
    return Qwen3Config(vocab_size=len(tokens), num_hidden_layers=layers, **SMALL_TEXT)


def z_image_transformer(**other: Any) -> ZImageTransformer2DModel:
    """That of Z-Image; what is given is another than usual."""
    usual: dict[str, Any] = {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 16,
        "axes_dims": [4, 6, 6],
        "axes_lens": [1024, 64, 64],
    }
    return ZImageTransformer2DModel(**{**usual, **other})


def z_image(shift: float = 6.0) -> ZImagePipeline:
    """Z-Image, whose scheduler's shift tells the base model (6) from Turbo (3)."""
    torch.manual_seed(0)
    tokens = letters()
    return ZImagePipeline(
        transformer=z_image_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=_vae(latent_channels=4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=Qwen3Model(_qwen3(tokens, layers=2)),
        tokenizer=tokens,
    )


def _vae_flux2() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )


def _flux2(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_guidance_channels=16,
        guidance_embeds=guidance_embeds,
    )


def flux2_klein(is_distilled: bool = True) -> Flux2KleinPipeline:
    """FLUX.2 klein: three layers of a Qwen3 encoder are what it reads."""
    torch.manual_seed(0)
    tokens = letters()
    return Flux2KleinPipeline(
        transformer=_flux2(guidance_embeds=False),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae_flux2(),
        text_encoder=Qwen3ForCausalLM(_qwen3(tokens, layers=28)),
        tokenizer=tokens,
        is_distilled=is_distilled,
    )


def flux2() -> Flux2Pipeline:
    """FLUX.2 dev: Mistral 3 reads the prompt; of its processor this is the tokenizer."""
    torch.manual_seed(0)
    template = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}[/INST]{% endfor %}"
    tokens = letters("[IMG]", "[/INST]", template=template)
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    reading = {"model_type": "mistral", "vocab_size": len(tokens), "num_hidden_layers": 30, **SMALL_TEXT}
    return Flux2Pipeline(
        transformer=_flux2(guidance_embeds=True),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae_flux2(),
        text_encoder=Mistral3ForConditionalGeneration(
            Mistral3Config(
                text_config=reading,
                vision_config={"model_type": "pixtral", "image_size": 28, "patch_size": 14, **sight},
                image_token_index=tokens.convert_tokens_to_ids("[IMG]"),
            )
        ),
        tokenizer=tokens,
    )


def ernie() -> ErnieImagePipeline:
    """ERNIE-Image, without the language model that would write its prompts anew."""
    torch.manual_seed(0)
    tokens = letters()
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    reading = {"model_type": "mistral", "vocab_size": len(tokens), "num_hidden_layers": 2, **SMALL_TEXT}
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=16,
        rope_axes_dim=(4, 6, 6),
    )
    return ErnieImagePipeline(
        transformer=wake(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae_flux2(),
        text_encoder=Mistral3Model(
            Mistral3Config(
                text_config=reading,
                vision_config={"model_type": "pixtral", "image_size": 28, "patch_size": 14, **sight},
                image_token_index=0,
            )
        ),
        tokenizer=tokens,
    )
