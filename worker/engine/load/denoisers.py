"""The names and shapes of a file's tensors -> whose denoiser it holds, as diffusers tells those of trainers apart."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type


@dataclass(frozen=True)
class Denoiser:
    """A kind of file.

    Attributes:
        kind: the class of diffusers that draws with such.
        title: what people call it.
        beside_a_base: whether it draws pictures with the rest of such a model.
        base: a repository that has this rest, as diffusers knows one; "" if it knows none.
    """

    kind: str
    title: str
    beside_a_base: bool = True
    base: str = ""


# How diffusers' word for a file begins -> what it is; the first that fits counts.
_DENOISERS = {
    "sd3": Denoiser("SD3Transformer2DModel", "Stable Diffusion 3"),
    "flux-2": Denoiser("Flux2Transformer2DModel", "FLUX.2"),
    "flux-3": Denoiser("Flux3Transformer2DModel", "FLUX.3"),
    "flux": Denoiser("FluxTransformer2DModel", "FLUX.1"),
    "chroma": Denoiser("ChromaTransformer2DModel", "Chroma"),
    "z-image-turbo-controlnet": Denoiser("ZImageControlNetModel", "a ControlNet of Z-Image", False),
    "z-image": Denoiser("ZImageTransformer2DModel", "Z-Image"),
    "qwen-image-2.1": Denoiser("QwenImage21Transformer2DModel", "Qwen-Image 2.1"),
    "krea2": Denoiser("Krea2Transformer2DModel", "Krea 2"),
    "auraflow": Denoiser("AuraFlowTransformer2DModel", "AuraFlow"),
    "lumina2": Denoiser("Lumina2Transformer2DModel", "Lumina 2"),
    "sana": Denoiser("SanaTransformer2DModel", "Sana"),
    "hidream": Denoiser("HiDreamImageTransformer2DModel", "HiDream"),
    "wan": Denoiser("WanTransformer3DModel", "Wan, a video model", False),
    "ltx": Denoiser("LTXVideoTransformer3DModel", "LTX, a video model", False),
    "hunyuan-video": Denoiser("HunyuanVideoTransformer3DModel", "HunyuanVideo, a video model", False),
}


def tell_denoiser(shapes: Mapping[str, tuple[int, ...]]) -> Denoiser | None:
    """Whose denoiser a file with such tensors holds; None where diffusers does not know.

    What diffusers' layout names is known by none of its marks, nor are models of another size.
    """
    try:
        told: str = infer_diffusers_model_type(outline(shapes))
    except (LookupError, NameError, NotImplementedError, RuntimeError, ValueError):
        return None  # it is like one of them, and not as large
    base = DIFFUSERS_DEFAULT_PIPELINE_PATHS.get(told, {}).get("pretrained_model_name_or_path", "")
    return next((replace(found, base=base) for word, found in _DENOISERS.items() if told.startswith(word)), None)


def outline(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The tensors without their numbers: enough to see whether they fit, before any are read."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
