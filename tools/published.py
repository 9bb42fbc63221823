"""The models that people run, as they are published: where, under which licence, and of which parts.

Parts are built on torch's meta device, from the numbers of their published configs: nothing is downloaded, and no
memory is taken, so that their weights can be counted.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Krea2Transformer2DModel,
    QwenImage21Transformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from transformers import CLIPTextModelWithProjection

from tools import parts
from tools.parts import Make

MEGAPIXEL = 1024 * 1024


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
        pixels: of a picture in the size that they draw best.
        variant: of the files in 16 bits, where a repository has others with the plain names.
        scene: of the benchmark, in which such a model draws one picture.
        start: of the benchmark, in which a worker with such a model starts.
    """

    title: str
    checkpoints: tuple[Checkpoint, ...]
    parts: Mapping[str, Make] = field(hash=False)
    pixels: int = MEGAPIXEL
    variant: str = ""
    scene: str = ""
    start: str = ""

    def build(self) -> dict[str, torch.nn.Module]:
        """The parts, without memory."""
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers warns of its own use of old names
            return {name: make() for name, make in self.parts.items()}


_APACHE, _FLUX = "Apache 2.0", "FLUX Non-Commercial"
_STABILITY, _KREA = "Stability AI Community", "Krea 2 Community"
_BFL = "black-forest-labs"
_FLUX1: Mapping[str, Make] = {
    "transformer": lambda: FluxTransformer2DModel(guidance_embeds=True),
    "text_encoder": parts.CLIP_L,
    "text_encoder_2": parts.t5,
    "vae": parts.vae16,
}
_QWEN_IMAGE: Mapping[str, Make] = {
    "transformer": QwenImageTransformer2DModel,
    "text_encoder": parts.qwen_vl,
    "vae": AutoencoderKLQwenImage,
}
_LONGCAT_IMAGE: Mapping[str, Make] = {
    "transformer": parts.longcat,
    "text_encoder": parts.qwen_vl,
    "vae": parts.vae16,
}
_SD3_ENCODERS: Mapping[str, Make] = {
    "text_encoder": parts.clip("sdxl", "text_encoder", CLIPTextModelWithProjection),
    "text_encoder_2": parts.CLIP_G,
    "text_encoder_3": parts.t5,
}
_HUNYUAN, _TENCENT = "hunyuanvideo-community/HunyuanImage-2.1", "Tencent Hunyuan Community"

PUBLISHED = (
    Published(
        "FLUX.2 dev",
        (Checkpoint(f"{_BFL}/FLUX.2-dev", _FLUX, "flux2-dev", gated=True),),
        {"transformer": Flux2Transformer2DModel, "text_encoder": parts.mistral, "vae": AutoencoderKLFlux2},
    ),
    Published(
        "FLUX.2 klein 9B",
        (
            Checkpoint(f"{_BFL}/FLUX.2-klein-9B", _FLUX, "flux2-klein", gated=True),
            Checkpoint(f"{_BFL}/FLUX.2-klein-base-9B", _FLUX, "flux2-klein-base", gated=True),
        ),
        {
            "transformer": parts.klein(8, 24, 32, 12288),
            "text_encoder": parts.qwen3(4096, 12288, tied=False),
            "vae": AutoencoderKLFlux2,
        },
        scene="klein-9b-1",
    ),
    Published(
        "FLUX.2 klein 4B",
        (
            Checkpoint(f"{_BFL}/FLUX.2-klein-4B", _APACHE, "flux2-klein"),
            Checkpoint(f"{_BFL}/FLUX.2-klein-base-4B", _APACHE, "flux2-klein-base"),
        ),
        {
            "transformer": parts.klein(5, 20, 24, 7680),
            "text_encoder": parts.qwen3(2560, 9728, tied=True),
            "vae": AutoencoderKLFlux2,
        },
        scene="klein-1",
    ),
    Published(
        "Qwen-Image",
        (
            Checkpoint("Qwen/Qwen-Image", _APACHE, "qwen-image"),
            Checkpoint("Qwen/Qwen-Image-2512", _APACHE, "qwen-image"),
        ),
        _QWEN_IMAGE,
        scene="qwen-1",
    ),
    Published(
        "Qwen-Image-Edit",
        (
            Checkpoint("Qwen/Qwen-Image-Edit-2511", _APACHE, "qwen-image-edit-plus"),
            Checkpoint("Qwen/Qwen-Image-Edit-2509", _APACHE, "qwen-image-edit-plus"),
            Checkpoint("Qwen/Qwen-Image-Edit", _APACHE, "qwen-image-edit"),
        ),
        _QWEN_IMAGE,
    ),
    Published(
        "Qwen-Image 2.1",
        (Checkpoint("Qwen/Qwen-Image-2.1", "Qwen Research", "qwen-image-2.1"),),
        {
            "transformer": QwenImage21Transformer2DModel,
            "text_encoder": parts.qwen3_vl_8b,
            "vae": AutoencoderKLQwenImage21,
        },
    ),
    Published(
        "Qwen-Image-Layered",
        (Checkpoint("Qwen/Qwen-Image-Layered", _APACHE, "qwen-image-layered"),),
        {
            "transformer": lambda: QwenImageTransformer2DModel(use_additional_t_cond=True, use_layer3d_rope=True),
            "text_encoder": parts.qwen_vl,
            "vae": lambda: AutoencoderKLQwenImage(input_channels=4),
        },
        pixels=640 * 640,
    ),
    Published(
        "Z-Image",
        (
            Checkpoint("Tongyi-MAI/Z-Image-Turbo", _APACHE, "z-image-turbo"),
            Checkpoint("Tongyi-MAI/Z-Image", _APACHE, "z-image"),
        ),
        {
            "transformer": ZImageTransformer2DModel,
            "text_encoder": parts.qwen3(2560, 9728, tied=True),
            "vae": parts.vae16,
        },
        scene="z-image-1",
    ),
    Published(
        "Krea 2",
        (
            Checkpoint("krea/Krea-2-Turbo", _KREA, "krea-2-turbo", gated=True),
            Checkpoint("krea/Krea-2-Raw", _KREA, "krea-2", gated=True),
        ),
        {"transformer": Krea2Transformer2DModel, "text_encoder": parts.qwen3_vl_4b, "vae": AutoencoderKLQwenImage},
    ),
    Published(
        "ERNIE-Image",
        (
            Checkpoint("baidu/ERNIE-Image", _APACHE, "ernie-image"),
            Checkpoint("baidu/ERNIE-Image-Turbo", _APACHE, "ernie-image-turbo"),
        ),
        {
            "transformer": parts.ernie,
            "text_encoder": parts.ministral,
            "pe": parts.ministral_writer,
            "vae": AutoencoderKLFlux2,
        },
    ),
    Published(
        "LongCat-Image",
        (Checkpoint("meituan-longcat/LongCat-Image", _APACHE, "longcat-image"),),
        _LONGCAT_IMAGE,
    ),
    Published(
        "LongCat-Image-Edit",
        (Checkpoint("meituan-longcat/LongCat-Image-Edit", _APACHE, "longcat-image-edit"),),
        _LONGCAT_IMAGE,
    ),
    Published(
        "HunyuanImage 2.1",
        (
            Checkpoint(f"{_HUNYUAN}-Diffusers", _TENCENT, "hunyuan-image"),
            Checkpoint(f"{_HUNYUAN}-Distilled-Diffusers", _TENCENT, "hunyuan-image-distilled"),
        ),
        {
            "transformer": parts.hunyuan,
            "text_encoder": parts.qwen_vl,
            "text_encoder_2": parts.glyph_byt5,
            "vae": parts.hunyuan_vae,
        },
        pixels=2048 * 2048,
    ),
    Published(
        "Kandinsky 5",
        (Checkpoint("kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers", "MIT", "kandinsky-5"),),
        {
            "transformer": parts.kandinsky5,
            "text_encoder": parts.qwen_vl,
            "text_encoder_2": parts.CLIP_L,
            "vae": parts.vae16,
        },
    ),
    Published(
        "Sana",
        (Checkpoint("Efficient-Large-Model/Sana_1600M_1024px_diffusers", "NVIDIA, NSCL v2-custom", "sana"),),
        {"transformer": SanaTransformer2DModel, "text_encoder": parts.gemma2, "vae": parts.dc_ae},
        variant="fp16",
    ),
    Published(
        "FLUX.1",
        (
            Checkpoint(f"{_BFL}/FLUX.1-dev", _FLUX, "flux-dev", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Krea-dev", _FLUX, "flux-krea", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Fill-dev", _FLUX, "flux-fill", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Canny-dev", _FLUX, "flux-canny", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-Depth-dev", _FLUX, "flux-depth", gated=True),
            Checkpoint(f"{_BFL}/FLUX.1-schnell", _APACHE, "flux-schnell", gated=True),
        ),
        _FLUX1,
        scene="flux-1",
    ),
    Published(
        "FLUX.1 Kontext",
        (Checkpoint(f"{_BFL}/FLUX.1-Kontext-dev", _FLUX, "flux-kontext", gated=True),),
        _FLUX1,
    ),
    Published(
        "Chroma1",
        (Checkpoint("lodestones/Chroma1-HD", _APACHE, "chroma"),),
        {"transformer": ChromaTransformer2DModel, "text_encoder": parts.t5, "vae": parts.vae16},
        scene="chroma-1",
    ),
    Published(
        "Stable Diffusion 3.5 Large",
        (
            Checkpoint("stabilityai/stable-diffusion-3.5-large", _STABILITY, "sd3", gated=True),
            Checkpoint("stabilityai/stable-diffusion-3.5-large-turbo", _STABILITY, "sd3-turbo", gated=True),
        ),
        {"transformer": parts.sd35(38, positions=192), **_SD3_ENCODERS, "vae": parts.vae16},
        scene="sd35-1",
    ),
    Published(
        "Stable Diffusion 3.5 Medium",
        (Checkpoint("stabilityai/stable-diffusion-3.5-medium", _STABILITY, "sd3", gated=True),),
        {"transformer": parts.sd35(24, 384, tuple(range(13))), **_SD3_ENCODERS, "vae": parts.vae16},
    ),
    Published(
        "Stable Diffusion XL",
        (
            Checkpoint("stabilityai/stable-diffusion-xl-base-1.0", "CreativeML Open RAIL++-M", "sdxl"),
            Checkpoint("stabilityai/sdxl-turbo", "Stability AI Non-Commercial", "sdxl-turbo"),
        ),
        {
            "unet": parts.from_config(UNet2DConditionModel, "sdxl", "unet"),
            "text_encoder": parts.CLIP_L,
            "text_encoder_2": parts.CLIP_G,
            "vae": parts.from_config(AutoencoderKL, "sdxl", "vae"),
        },
        variant="fp16",
        scene="sdxl-1",
        start="cold",
    ),
    Published(
        "Stable Diffusion 1.5",
        (Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5", "CreativeML Open RAIL-M", "sd1"),),
        {
            "unet": parts.from_config(UNet2DConditionModel, "sd1", "unet"),
            "text_encoder": parts.clip("sd1", "text_encoder"),
            "vae": parts.from_config(AutoencoderKL, "sd1", "vae"),
        },
        pixels=512 * 512,
        variant="fp16",
        scene="sd15-1",
    ),
)
