"""Trained networks -> the folder that plain diffusers loads: fp16 safetensors in Stable Diffusion's layout."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from training.diffusion import Denoiser
from training.models import build_scheduler


def pipeline(vae: AutoencoderKL, net: Denoiser, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The parts as a pipeline, in the precision and on the device that they have."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=net.text_encoder,
        tokenizer=tokenizer,
        unet=net.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(folder: Path, vae: AutoencoderKL, net: Denoiser, tokenizer: CLIPTokenizer) -> None:
    """Write the model; the networks are cast to fp16 in place."""
    for part in (vae, net.unet, net.text_encoder):
        part.to(torch.float16)
    pipeline(vae, net, tokenizer).save_pretrained(folder, safe_serialization=True)
    # Told no dtype, transformers takes the one written here and diffusers float32: a plain load would mix them.
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
