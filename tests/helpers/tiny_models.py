"""Pipelines of the real classes, so small that a CPU draws with them in a fraction of a second; weights are random."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

# As published with CompVis/stable-diffusion-v1-4, stabilityai/stable-diffusion-2(-base) and -xl-base-1.0.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PUBLISHED = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}


def tokenizer() -> CLIPTokenizer:
    """A byte-level CLIP tokenizer without merges: one token a letter."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _text_config(tokens: CLIPTokenizer, **changes: object) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        **changes,
    )


def _unet(**changes: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        **{"cross_attention_dim": 32, "attention_head_dim": 4, **changes},
    )


def _vae(**changes: object) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **changes,
    )


def sd1(safety_checker: bool = False) -> StableDiffusionPipeline:
    """Stable Diffusion 1.x: CLIP's text encoder, epsilon, PNDM as published."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokens)),
        tokenizer=tokens,
        unet=_unet(),
        scheduler=PNDMScheduler.from_config(PUBLISHED),
        safety_checker=_checker() if safety_checker else None,
        feature_extractor=CLIPImageProcessorPil(size=32, crop_size=32) if safety_checker else None,
        requires_safety_checker=safety_checker,
    )


def _checker() -> StableDiffusionSafetyChecker:
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    return StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=16))


def sd2(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """Stable Diffusion 2.x: OpenCLIP's text encoder and linear projections; the 768 model predicts v."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokens, hidden_act="gelu")),
        tokenizer=tokens,
        unet=_unet(use_linear_projection=True, attention_head_dim=(2, 4)),
        scheduler=PNDMScheduler.from_config({**PUBLISHED, "prediction_type": prediction_type}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL base: two text encoders, size and crop as extra conditions, Euler with leading steps."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(_text_config(tokens)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokens, hidden_act="gelu")),
        tokenizer=tokens,
        tokenizer_2=tokenizer(),
        unet=_unet(
            cross_attention_dim=64,
            use_linear_projection=True,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
    )


def sdxl_refiner() -> StableDiffusionXLImg2ImgPipeline:
    """SDXL's refiner: the second text encoder only, and an aesthetic score instead of the target size."""
    torch.manual_seed(1)
    tokens = tokenizer()
    return StableDiffusionXLImg2ImgPipeline(
        vae=_vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=None,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokens, hidden_act="gelu")),
        tokenizer=None,
        tokenizer_2=tokens,
        unet=_unet(
            cross_attention_dim=32,
            use_linear_projection=True,
            attention_head_dim=(2, 4),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=5 * 8 + 32,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        requires_aesthetics_score=True,
    )


def for_inpainting(made: DiffusionPipeline, class_name: str | None = None, **changes: object) -> DiffusionPipeline:
    """The same model with a UNet that looks at a mask and what it leaves, as a pipeline that inpaints or of this class.

    Args:
        changes: other entries of the UNet's config.
    """
    torch.manual_seed(2)
    entries = {name: value for name, value in made.unet.config.items() if name != "_use_default_values"}
    unet = UNet2DConditionModel.from_config({**entries, "in_channels": 9, **changes})
    kind = getattr(diffusers, class_name or type(made).__name__.replace("Pipeline", "InpaintPipeline"))
    unchecked = {"requires_safety_checker": False} if "safety_checker" in made.components else {}
    return kind(**{**made.components, "unet": unet}, **unchecked)


UNETS = {"sd1": sd1, "sd2": sd2, "sd2-v": partial(sd2, "v_prediction"), "sdxl": sdxl}


def wake(module: torch.nn.Module) -> torch.nn.Module:
    """Give weights other than zero to layers that begin with zeros, and would let no prompt through."""
    for weight in module.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    return module


def save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    """Write the pipeline in diffusers layout."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_all(makers: Mapping[str, Callable[[], DiffusionPipeline]], root: Path) -> dict[str, Path]:
    """Each in a folder of its own, by its name."""
    return {name: save(make(), root / name) for name, make in makers.items()}
