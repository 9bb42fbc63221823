"""Tiny pipelines of the families beyond UNets with CLIP: SD3, FLUX, and some that the worker's code does not name."""

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.helpers.tiny_models import PUBLISHED, _text_config, _unet, _vae, tokenizer


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer with one token a letter."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=special + [(chr(code), -3.0) for code in range(33, 127)], extra_ids=0)


def t5() -> T5EncoderModel:
    """Width 32, two layers."""
    return T5EncoderModel(
        T5Config(
            vocab_size=98, d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=4, relative_attention_num_buckets=8
        )
    )


def _vae16() -> AutoencoderKL:
    """Sixteen latent channels and a shift, as SD3 and FLUX have."""
    return _vae(
        latent_channels=16, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False
    )


def sd3(layers: int = 1) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3: three text encoders, flow matching."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=layers,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            pos_embed_max_size=96,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae16(),
        text_encoder=CLIPTextModelWithProjection(_text_config(tokens)),
        tokenizer=tokens,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokens, hidden_act="gelu")),
        tokenizer_2=tokenizer(),
        text_encoder_3=_wide_t5(),
        tokenizer_3=t5_tokenizer(),
    )


def _wide_t5() -> T5EncoderModel:
    """As wide as both CLIP encoders together, which SD3 lays before it."""
    return T5EncoderModel(
        T5Config(
            vocab_size=98, d_model=64, d_ff=37, d_kv=8, num_layers=2, num_heads=4, relative_attention_num_buckets=8
        )
    )


def flux(guidance_embeds: bool = True, head: int = 16, axes: tuple[int, ...] = (4, 4, 8)) -> FluxPipeline:
    """FLUX.1: dev with its guidance as an input, schnell without; two heads so wide."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=head,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=axes,
            guidance_embeds=guidance_embeds,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
        ),
        vae=_vae16(),
        text_encoder=CLIPTextModel(_text_config(tokens)),
        tokenizer=tokens,
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
    )


def lcm() -> LatentConsistencyModelPipeline:
    """A latent consistency model: guidance distilled into an embedding, no negative prompt, a scheduler of its own."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return LatentConsistencyModelPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokens)),
        tokenizer=tokens,
        unet=_unet(time_cond_proj_dim=32),
        scheduler=LCMScheduler(**{name: value for name, value in PUBLISHED.items() if name != "skip_prk_steps"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pixart() -> PixArtSigmaPipeline:
    """PixArt-Sigma: a T5 encoder and a pipeline without a step callback."""
    torch.manual_seed(0)
    return PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=32,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
            use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(),
        vae=_vae(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def chroma() -> ChromaPipeline:
    """Chroma: FLUX's shape with real guidance and negative prompts."""
    torch.manual_seed(0)
    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae16(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def qwen() -> QwenImagePipeline:
    """Qwen-Image: a language model that sees reads the prompt, and guidance is away from a negative prompt."""
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 99}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    letters = {chr(code): code - 33 for code in range(33, 127)} | {"Ġ": 94, "Ċ": 95}
    tokens = Qwen2Tokenizer(vocab=letters | {"<|endoftext|>": 96, "<|im_start|>": 97, "<|im_end|>": 98}, merges=[])
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config={**text, **heads, "rope_parameters": rope}, vision_config=sight)
        ),
        tokenizer=tokens,
    )
