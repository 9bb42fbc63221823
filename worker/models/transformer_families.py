"""The families that draw with a transformer: Stable Diffusion 3, FLUX, and those that came after them."""

from types import MappingProxyType
from typing import Any

from worker.models.family import Family

_MEGAPIXEL = 1024 * 1024


def _row(name: str, title: str, pipeline: str, steps: int, guidance_scale: float, **rest: Any) -> Family:
    """What most of them have in common: they follow a flow, and take patches of two by two latents."""
    traits = MappingProxyType(rest.pop("traits", {}))
    usual = {"max_pixels": 4 * _MEGAPIXEL, "noise": "flow", "size_step": 16, "max_steps": 200}
    return Family(name, title, pipeline, steps, guidance_scale, traits=traits, **{**usual, **rest})


_DISTILLED = {"pipeline.is_distilled": True}
_NO_NEGATIVE: dict[str, Any] = {"negative_prompt": False}
_BUILT_IN: dict[str, Any] = {"guidance": None, "negative_prompt": False}
_FLUX: dict[str, Any] = {"max_pixels": 2048 * 1536, "negative_prompt": False}
_SD3: dict[str, Any] = {"max_pixels": 1536 * 1536}
_LARGE: dict[str, Any] = {"max_pixels": 2304 * 2048}  # in other formats, more than the 2048x2048 that they draw best
_TRUE: dict[str, Any] = {"guidance": "true_cfg_scale"}

TRANSFORMER_FAMILIES: tuple[Family, ...] = (
    _row("sd3-turbo", "Stable Diffusion 3.5 Turbo", "StableDiffusion3Pipeline", 4, 0.0, named="turbo", **_SD3),
    _row("sd3", "Stable Diffusion 3 and 3.5", "StableDiffusion3Pipeline", 28, 7.0, **_SD3),
    _row(
        "flux-schnell",
        "FLUX.1 schnell",
        "FluxPipeline",
        4,
        0.0,
        traits={"transformer.guidance_embeds": False},
        **_FLUX,
        guidance=None,
    ),
    _row("flux-krea", "FLUX.1 Krea", "FluxPipeline", 28, 4.5, named="krea", **_FLUX),
    _row("flux-dev", "FLUX.1 dev", "FluxPipeline", 28, 3.5, **_FLUX),
    _row("flux-kontext", "FLUX.1 Kontext", "FluxKontextPipeline", 28, 2.5, **_FLUX),
    _row("flux-fill", "FLUX.1 Fill", "FluxFillPipeline", 50, 30.0, **_FLUX),
    _row("flux-depth", "FLUX.1 Depth", "FluxControlPipeline", 30, 10.0, named="depth", **_FLUX),
    _row("flux-canny", "FLUX.1 Canny", "FluxControlPipeline", 50, 30.0, **_FLUX),
    _row("flux2-klein", "FLUX.2 klein", "Flux2KleinPipeline", 4, 0.0, traits=_DISTILLED, **_BUILT_IN),
    _row("flux2-klein-base", "FLUX.2 klein base", "Flux2KleinPipeline", 50, 4.0, **_NO_NEGATIVE),
    _row("flux2-dev", "FLUX.2 dev", "Flux2Pipeline", 50, 4.0, **_NO_NEGATIVE),
    _row("z-image-turbo", "Z-Image Turbo", "ZImagePipeline", 8, 0.0, traits={"scheduler.shift": 3.0}, named="turbo"),
    _row("z-image", "Z-Image", "ZImagePipeline", 50, 5.0),
    _row("z-image-omni", "Z-Image Omni", "ZImageOmniPipeline", 50, 5.0),
    _row("qwen-image-lightning", "Qwen-Image Lightning", "QwenImagePipeline", 8, 1.0, named="lightning", **_TRUE),
    _row("qwen-image", "Qwen-Image", "QwenImagePipeline", 50, 4.0, **_TRUE),
    _row("qwen-image-edit", "Qwen-Image-Edit", "QwenImageEditPipeline", 40, 4.0, **_TRUE),
    _row("qwen-image-edit-plus", "Qwen-Image-Edit Plus", "QwenImageEditPlusPipeline", 40, 4.0, **_TRUE),
    _row(
        "qwen-image-layered",
        "Qwen-Image-Layered",
        "QwenImageLayeredPipeline",
        50,
        4.0,
        max_pixels=_MEGAPIXEL,
        size_step=32,
        **_TRUE,
    ),
    _row("qwen-image-2.1", "Qwen-Image 2.1", "QwenImage21Pipeline", 40, 1.0, **_TRUE, size_step=32),
    _row("krea-2-turbo", "Krea 2 Turbo", "Krea2Pipeline", 8, 0.0, traits=_DISTILLED),
    _row("krea-2", "Krea 2", "Krea2Pipeline", 28, 4.5),
    _row("chroma-flash", "Chroma1 Flash", "ChromaPipeline", 8, 1.0, named="flash"),
    _row("chroma", "Chroma1", "ChromaPipeline", 40, 3.0),
    _row("sana", "Sana", "SanaPipeline", 20, 4.5, size_step=32),
    _row(
        "sana-sprint",
        "Sana Sprint",
        "SanaSprintPipeline",
        2,
        4.5,
        schedule="intermediate_timesteps",
        noise="own",
        size_step=32,
        **_NO_NEGATIVE,
    ),
    _row("longcat-image", "LongCat-Image", "LongCatImagePipeline", 50, 4.5),
    _row("longcat-image-edit", "LongCat-Image-Edit", "LongCatImageEditPipeline", 50, 4.5),
    _row("hidream-i1-dev", "HiDream-I1 Dev", "HiDreamImagePipeline", 28, 0.0, named="dev"),
    _row("hidream-i1-fast", "HiDream-I1 Fast", "HiDreamImagePipeline", 16, 0.0, named="fast"),
    _row("hidream-i1", "HiDream-I1", "HiDreamImagePipeline", 50, 5.0),
    _row(
        "hunyuan-image-distilled",
        "HunyuanImage 2.1, distilled",
        "HunyuanImagePipeline",
        8,
        3.25,
        traits={"transformer.guidance_embeds": True},
        guidance="distilled_guidance_scale",
        size_step=32,
        **_NO_NEGATIVE,
        **_LARGE,
    ),
    # Guided by a component of its own, which the model brings with its scale.
    _row("hunyuan-image", "HunyuanImage 2.1", "HunyuanImagePipeline", 50, 3.5, guidance=None, size_step=32, **_LARGE),
    _row("ernie-image-turbo", "ERNIE-Image Turbo", "ErnieImagePipeline", 8, 1.0, named="turbo"),
    _row("ernie-image", "ERNIE-Image", "ErnieImagePipeline", 50, 4.0),
    # Reads the padding of a shorter prompt beside a longer one, too.
    _row("kandinsky-5", "Kandinsky 5", "Kandinsky5T2IPipeline", 50, 3.5, alone=True),
    # Of a larger picture, its language model would see more than there is room for beside a prompt.
    _row("kandinsky-5-i2i", "Kandinsky 5 I2I", "Kandinsky5I2IPipeline", 50, 3.5, max_pixels=1280 * 1024),
    # Reads the padding of a shorter prompt beside a longer one.
    _row("joyimage-edit", "JoyAI-Image-Edit", "JoyImageEditPipeline", 40, 4.0, alone=True),
    _row("joyimage-edit-plus", "JoyAI-Image-Edit-Plus", "JoyImageEditPlusPipeline", 30, 4.0),
    _row(
        "ideogram-4",
        "Ideogram 4",
        "Ideogram4Pipeline",
        48,
        7.0,
        schedule="guidance_schedule",
        guidance_follows=True,
        **_NO_NEGATIVE,
        **_LARGE,
    ),
    # Samples with the one generator that it takes what the transformer is to draw.
    _row("glm-image", "GLM-Image", "GlmImagePipeline", 30, 1.5, size_step=32, alone=True, **_NO_NEGATIVE),
)
