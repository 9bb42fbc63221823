"""QUANTIZE -> whether it can be had; and 8- or 4-bit weights for the denoiser and large text encoders, made in loading.

bitsandbytes makes these, through diffusers: LLM.int8() (arXiv:2208.07339) in 8 bits, NF4 (arXiv:2305.14314) in 4. Only
the linear layers are quantised; each is computed in the pipeline's number format.
"""

import importlib.util
import logging
import re
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers

from worker.errors import SettingsError
from worker.models.locate import ModelSource
from worker.settings import Settings

log = logging.getLogger("worker")

# Of components that read prompts; GLM-Image's second writes down what is to be drawn, ERNIE-Image's a better prompt.
_READERS = re.compile(r"text_encoder.*|vision_language_encoder|pe")
_PACKAGES = {"8bit": "bitsandbytes", "4bit": "bitsandbytes", "fp8": "torchao"}


def check_quantize(settings: Settings, source: ModelSource, device: torch.device) -> None:
    """Whether what QUANTIZE asks for can be had, before anything is loaded.

    Raises:
        SettingsError: there is no CUDA device or not the package that does it, bitsandbytes cannot read the model,
            which is a single file, or OFFLOAD cannot be combined with it.
    """
    if settings.quantize == "none":
        return
    if device.type != "cuda":
        raise SettingsError(f"QUANTIZE: {settings.quantize} needs a CUDA device, and none was found")
    package = _PACKAGES[settings.quantize]
    if importlib.util.find_spec(package) is None:
        raise SettingsError(
            f"QUANTIZE: {settings.quantize} needs {package}, which is not installed; "
            "`pip install -r requirements-gpu.txt` installs it"
        )
    if source.kind in ("file", "hub file") and package == "bitsandbytes":
        raise SettingsError(
            f"QUANTIZE: {source.name} is a single file; {settings.quantize} takes a model in diffusers layout only"
        )
    if settings.transformer_name is not None:
        raise SettingsError(
            f"QUANTIZE: got {settings.quantize!r}; the file that TRANSFORMER_NAME names is read as it is"
        )
    if settings.quantize == "8bit" and settings.offload in ("model", "group"):
        # bitsandbytes' 8-bit layers keep a reference to their weights on the device, so moving them frees nothing.
        raise SettingsError(
            f"OFFLOAD: got {settings.offload!r}; 8-bit weights cannot leave the device, so allowed with QUANTIZE=8bit: "
            "auto, none; QUANTIZE=4bit and fp8 take all"
        )


def quantization_options(settings: Settings, index: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The options with which `from_pretrained` quantises a pipeline; none where that is not wanted, or comes after it.

    Args:
        index: the model_index.json, component -> library and class.
        dtype: number format to compute in.

    Raises:
        SettingsError: the model has nothing to quantise, or IP_ADAPTER cannot be combined with it.
    """
    if settings.quantize == "none":
        return {}
    if settings.ip_adapter is not None and "unet" in index and settings.quantize != "fp8":
        # diffusers casts a whole UNet when it attaches one, which quantised weights do not allow.
        raise SettingsError(f"IP_ADAPTER: {index.get('_class_name')} takes none with QUANTIZE={settings.quantize}")
    if settings.quantize == "fp8":
        if not any(name.startswith("transformer") for name in index):
            raise SettingsError(explain_no_transformer(str(index.get("_class_name"))))
        return {}
    parts = {name: entry[0] for name, entry in index.items() if _is_read_here(entry) and is_large(name, str(entry[1]))}
    if not parts:
        raise SettingsError(f"QUANTIZE: {index.get('_class_name')} has neither a UNet nor a transformer to quantise")
    log.info("%s weights for %s: QUANTIZE says so", settings.quantize, " and ".join(sorted(parts)))
    bits: dict[str, Any] = {"load_in_8bit": True}
    if settings.quantize == "4bit":
        bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    libraries = {"diffusers": diffusers.BitsAndBytesConfig, "transformers": transformers.BitsAndBytesConfig}
    mapping = {name: libraries[library](**bits) for name, library in parts.items()}
    return {"quantization_config": diffusers.PipelineQuantizationConfig(quant_mapping=mapping)}


def explain_no_transformer(pipeline: str) -> str:
    """Why fp8 is refused for a pipeline of this name."""
    return f"QUANTIZE: fp8 is for diffusion transformers, and {pipeline} draws with none; allowed: none, 8bit, 4bit"


def is_large(name: str, kind: str) -> bool:
    """Whether a component of this class is a denoiser, or a text encoder beside which CLIP's are small."""
    large_text = _READERS.fullmatch(name) is not None and not kind.startswith("CLIP")
    return large_text or name.startswith(("unet", "transformer"))


def _is_read_here(entry: Any) -> bool:
    return isinstance(entry, list) and entry[0] in ("diffusers", "transformers")
