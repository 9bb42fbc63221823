"""Tiny pipelines of the transformers of today, whose prompts a language model reads; each with its real classes."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Mistral3Model,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
)

from tests.helpers.tiny_models import _vae

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


def without_videos(kind: Any) -> Any:
    """The processor's class without the part that would need torchvision."""
    names = [name for name in kind.get_attributes() if name != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: names), "__module__": kind.__module__})


def _qwen3(tokens: Any, layers: int) -> Qwen3Config:
    return Qwen3Config(vocab_size=len(tokens), num_hidden_layers=layers, **SMALL_TEXT)


def z_image(shift: float = 6.0) -> ZImagePipeline:
    """Z-Image, whose scheduler's shift tells the base model (6) from Turbo (3)."""
    torch.manual_seed(0)
    tokens = letters()
    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        ),
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


def ernie() -> ErnieImagePipeline:
    """ERNIE-Image, without the language model that would write its prompts anew."""
    torch.manual_seed(0)
    tokens = letters()
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    reading = {"model_type": "mistral", "vocab_size": len(tokens), "num_hidden_layers": 2, **SMALL_TEXT}
    return ErnieImagePipeline(
        transformer=ErnieImageTransformer2DModel(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=1,
            ffn_hidden_size=32,
            in_channels=16,
            out_channels=16,
            text_in_dim=16,
            rope_axes_dim=(4, 6, 6),
        ),
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


def qwen_image21() -> QwenImage21Pipeline:
    """Qwen-Image 2.1: a processor hands the prompt to Qwen3-VL; its VAE draws sixteen pixels a latent."""
    torch.manual_seed(0)
    template = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content[0].text }}<|im_end|>{% endfor %}"
    tokens = letters("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", template=template)
    processor = without_videos(Qwen3VLProcessor)(
        image_processor=Qwen2VLImageProcessorPil(patch_size=16), tokenizer=tokens, chat_template=template
    )
    return QwenImage21Pipeline(
        transformer=QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=16,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage21(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen3VLForConditionalGeneration(_qwen3_vl(tokens, layers=2)),
        processor=processor,
        sample_sigmas=[1.0, 0.7, 0.4],
    )
