"""The models that people run, as they are published: where, under which licence, and of which parts.

Parts are built on torch's meta device, from the numbers of their published configs: nothing is downloaded, and no
memory is taken, so that their weights can be counted.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

CONFIGS = Path(__file__).parents[1] / "worker" / "engine" / "load" / "configs"

Make = Callable[[], Any]


@dataclass(frozen=True)
class Checkpoint:
    """One of a size.

    Attributes:
        repository: its hub id.
        licence: as its card says.
        family: name of its row in the table of families.
        gated: whether a token of an account that has accepted the licence is needed.
    """

    repository: str
    licence: str
    family: str
    gated: bool = False


@dataclass(frozen=True)
class Published:
    """Checkpoints of the same parts.

    Attributes:
        parts: component -> what builds it.
        scene: of the benchmark, in which such a model draws one picture.
        start: of the benchmark, in which a worker with such a model starts.
    """

    title: str
    checkpoints: tuple[Checkpoint, ...]
    parts: Mapping[str, Make] = field(hash=False)
    scene: str = ""
    start: str = ""

    def build(self) -> dict[str, torch.nn.Module]:
        """The parts, without memory."""
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers warns of its own use of old names
            return {name: make() for name, make in self.parts.items()}


def _clip(folder: str, name: str, kind: Any = CLIPTextModel) -> Make:
    return lambda: kind(CLIPTextConfig.from_pretrained(CONFIGS / folder / name))


def _from_config(kind: Any, folder: str, name: str) -> Make:
    return lambda: kind.from_config(kind.load_config(CONFIGS / folder / name))


def _t5() -> Any:
    shape = {"vocab_size": 32128, "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64}
    return T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu"))


def _qwen3(hidden: int, intermediate: int, tied: bool) -> Make:
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 36}
    return lambda: Qwen3ForCausalLM(
        Qwen3Config(hidden_size=hidden, intermediate_size=intermediate, tie_word_embeddings=tied, **heads)
    )


def _qwen_vl() -> Any:
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


def _mistral() -> Any:
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
    vision = {"model_type": "pixtral", "patch_size": 14, "image_size": 1540}
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    )


def _vae16() -> Any:
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


def _klein(double: int, single: int, heads: int, text: int) -> Make:
    return lambda: Flux2Transformer2DModel(
        num_layers=double,
        num_single_layers=single,
        num_attention_heads=heads,
        joint_attention_dim=text,
        guidance_embeds=False,
    )


def _sd3_large() -> Any:
    return SD3Transformer2DModel(
        sample_size=128,
        num_layers=38,
        num_attention_heads=38,
        attention_head_dim=64,
        caption_projection_dim=2432,
        joint_attention_dim=4096,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
    )


_APACHE, _FLUX = "Apache 2.0", "FLUX Non-Commercial"
_STABILITY = "Stability AI Community"
_CLIP_L, _CLIP_G = _clip("sdxl", "text_encoder"), _clip("sdxl", "text_encoder_2", CLIPTextModelWithProjection)
_BFL = "black-forest-labs"

PUBLISHED = (
    Published(
        "FLUX.2 dev",
        (Checkpoint(f"{_BFL}/FLUX.2-dev", _FLUX, "flux2-dev", gated=True),),
        {"transformer": Flux2Transformer2DModel, "text_encoder": _mistral, "vae": AutoencoderKLFlux2},
    ),
    Published(
        "FLUX.2 klein 9B",
        (
            Checkpoint(f"{_BFL}/FLUX.2-klein-9B", _FLUX, "flux2-klein", gated=True),
            Checkpoint(f"{_BFL}/FLUX.2-klein-base-9B", _FLUX, "flux2-klein-base", gated=True),
        ),
        {
            "transformer": _klein(8, 24, 32, 12288),
            "text_encoder": _qwen3(4096, 12288, tied=False),
            "vae": AutoencoderKLFlux2,
        },
    ),
    Published(
        "FLUX.2 klein 4B",
        (
            Checkpoint(f"{_BFL}/FLUX.2-klein-4B", _APACHE, "flux2-klein"),
            Checkpoint(f"{_BFL}/FLUX.2-klein-base-4B", _APACHE, "flux2-klein-base"),
        ),
        {
            "transformer": _klein(5, 20, 24, 7680),
            "text_encoder": _qwen3(2560, 9728, tied=True),
            "vae": AutoencoderKLFlux2,
        },
        scene="klein-1",
    ),
    Published(
        "Qwen-Image",
        (
            Checkpoint("Qwen/Qwen-Image", _APACHE, "qwen-image"),
            Checkpoint("Qwen/Qwen-Image-2512", _APACHE, "qwen-image"),
            Checkpoint("Qwen/Qwen-Image-Edit", _APACHE, "qwen-image-edit"),
            Checkpoint("Qwen/Qwen-Image-Edit-2509", _APACHE, "qwen-image-edit-plus"),
            Checkpoint("Qwen/Qwen-Image-Edit-2511", _APACHE, "qwen-image-edit-plus"),
        ),
        {"transformer": QwenImageTransformer2DModel, "text_encoder": _qwen_vl, "vae": AutoencoderKLQwenImage},
    ),
    Published(
        "Z-Image",
        (
            Checkpoint("Tongyi-MAI/Z-Image-Turbo", _APACHE, "z-image-turbo"),
            Checkpoint("Tongyi-MAI/Z-Image", _APACHE, "z-image"),
        ),
        {"transformer": ZImageTransformer2DModel, "text_encoder": _qwen3(2560, 9728, tied=True), "vae": _vae16},
        scene="z-image-1",
    ),
    Published(
        "FLUX.1",
        (
            Checkpoint(f"{_BFL}/FLUX.1-dev", _FLUX, "flux-dev", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Krea-dev", _FLUX, "flux-krea", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Kontext-dev", _FLUX, "flux-kontext", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Fill-dev", _FLUX, "flux-fill", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Canny-dev", _FLUX, "flux-canny", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Depth-dev", _FLUX, "flux-depth", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-schnell", _APACHE, "flux-schnell", gated=True),
        ),
        {
            "transformer": lambda: FluxTransformer2DModel(guidance_embeds=True),
            "text_encoder": _CLIP_L,
            "text_encoder_2": _t5,
            "vae": _vae16,
        },
        scene="flux-1",
    ),
    Published(
        "Chroma1",
        (Checkpoint("lodestones/Chroma1-HD", _APACHE, "chroma"),),
        {"transformer": ChromaTransformer2DModel, "text_encoder": _t5, "vae": _vae16},
    ),
    Published(
        "Stable Diffusion 3.5 Large",
        (
            Checkpoint("stabilityai/stable-diffusion-3.5-large", _STABILITY, "sd3", gated=True),
            Checkpoint("stabilityai/stable-diffusion-3.5-large-turbo", _STABILITY, "sd3-turbo", gated=True),
        ),
        {
            "transformer": _sd3_large,
            "text_encoder": _clip("sdxl", "text_encoder", CLIPTextModelWithProjection),
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": _t5,
            "vae": _vae16,
        },
    ),
    Published(
        "Stable Diffusion XL",
        (
            Checkpoint("stabilityai/stable-diffusion-xl-base-1.0", "CreativeML Open RAIL++-M", "sdxl"),
            Checkpoint("stabilityai/sdxl-turbo", "Stability AI Non-Commercial", "sdxl-turbo"),
        ),
        {
            "unet": _from_config(UNet2DConditionModel, "sdxl", "unet"),
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "vae": _from_config(AutoencoderKL, "sdxl", "vae"),
        },
        scene="sdxl-1",
        start="cold",
    ),
    Published(
        "Stable Diffusion 1.5",
        (Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5", "CreativeML Open RAIL-M", "sd1"),),
        {
            "unet": _from_config(UNet2DConditionModel, "sd1", "unet"),
            "text_encoder": _clip("sd1", "text_encoder"),
            "vae": _from_config(AutoencoderKL, "sd1", "vae"),
        },
        scene="sd15-1",
    ),
)
