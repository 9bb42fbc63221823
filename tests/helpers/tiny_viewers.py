"""Tiny pipelines of further models that edit, most of them by a language model that sees the pictures."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    JoyImageEditPipeline,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
    Kandinsky5I2IPipeline,
    LongCatImageEditPipeline,
    QwenImage21Pipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
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

from tests.helpers import tiny_editors, tiny_models, tiny_readers
from tests.helpers.tiny_flows import z_image_transformer
from tests.helpers.tiny_models import _vae
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
        transformer=tiny_readers.longcat_transformer(),
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


def _parts_with_sight(made: DiffusionPipeline, *unwanted: str) -> dict[str, Any]:
    """The model's, with a UNet that sees a picture beside what it draws."""
    torch.manual_seed(2)
    entries = {name: value for name, value in made.unet.config.items() if name != "_use_default_values"}
    unet = UNet2DConditionModel.from_config({**entries, "in_channels": 8})
    return {name: part for name, part in made.components.items() if name not in unwanted} | {"unet": unet}


def pix2pix() -> StableDiffusionInstructPix2PixPipeline:
    """InstructPix2Pix: Stable Diffusion 1.x, guided by the instruction and by the picture; Euler a as published."""
    parts = _parts_with_sight(tiny_models.sd1())
    parts["scheduler"] = EulerAncestralDiscreteScheduler(**tiny_models.BETAS)
    return StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)


def pix2pix_xl() -> StableDiffusionXLInstructPix2PixPipeline:
    """The same of Stable Diffusion XL."""
    parts = _parts_with_sight(tiny_models.sdxl(), "image_encoder", "feature_extractor")
    return StableDiffusionXLInstructPix2PixPipeline(**parts)


def kandinsky5_edit() -> Kandinsky5I2IPipeline:
    """Kandinsky 5 I2I: its language model sees the picture; it draws in seven sizes."""
    parts = tiny_readers.kandinsky5().components
    return Kandinsky5I2IPipeline(**{**parts, "transformer": tiny_readers.kandinsky5_transformer(visual_cond=True)})


def _joyimage(kind: Any, transformer: Any) -> Any:
    made = qwen_image21()
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "text_dim": 16, "rope_dim_list": [4, 6, 6]}
    codes = {"z_dim": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "num_res_blocks": 1}
    return kind(
        transformer=transformer(in_channels=4, num_layers=1, **sizes),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
        vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], **codes),
        text_encoder=made.text_encoder,
        tokenizer=made.processor.tokenizer,
        processor=made.processor,
    )


def joyimage_edit() -> JoyImageEditPipeline:
    """JoyAI-Image-Edit: its language model sees the picture; it draws in sizes of a million pixels."""
    return _joyimage(JoyImageEditPipeline, JoyImageEditTransformer3DModel)


def joyimage_edit_plus() -> JoyImageEditPlusPipeline:
    """The same with up to five, in the size that is asked for."""
    return _joyimage(JoyImageEditPlusPipeline, JoyImageEditPlusTransformer3DModel)
