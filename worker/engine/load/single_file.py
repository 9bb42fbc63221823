"""A single `.safetensors` checkpoint in the original (CompVis, Stability) layout -> a diffusers pipeline.

The file's header, names and shapes of its tensors, says which architecture it is. diffusers converts the weights; the
configs it needs lie in `configs/`, so nothing is asked of the network. Such files carry no safety checker.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTokenizer

from worker.engine.load.completeness import check_complete
from worker.errors import ModelError
from worker.models.checks import describe_file

log = logging.getLogger("worker")

CONFIGS = Path(__file__).parent / "configs"
EPSILON, V_PREDICTION = "epsilon", "v_prediction"

_UNET = "model.diffusion_model."
_CONV_IN = f"{_UNET}input_blocks.0.0.weight"
_CLASS_EMBEDDING = f"{_UNET}label_emb.0.0.weight"
_LAST_NORM_BIAS = f"{_UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
_PREDICTIONS = {"epsilon": EPSILON, "eps": EPSILON, "v": V_PREDICTION, "v_prediction": V_PREDICTION}


@dataclass(frozen=True)
class Architecture:
    """What is known of one architecture before its file is read.

    Attributes:
        config: folder of its diffusers configs.
        context: a cross-attention weight of the UNet and the width of the text that it attends to.
        text_encoders: a tensor of each text encoder.
        padding: the token each tokenizer fills up with.
    """

    config: str
    title: str
    pipeline: type[DiffusionPipeline]
    context: tuple[str, int]
    text_encoders: tuple[str, ...]
    padding: Mapping[str, str]
    class_embedding: bool = False


ARCHITECTURES = (
    Architecture(
        config="sd1",
        title="Stable Diffusion 1.x",
        pipeline=StableDiffusionPipeline,
        context=(f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 768),
        text_encoders=("cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",),
        padding={"tokenizer": "<|endoftext|>"},
    ),
    Architecture(
        config="sd2",
        title="Stable Diffusion 2.x",
        pipeline=StableDiffusionPipeline,
        context=(f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 1024),
        text_encoders=("cond_stage_model.model.token_embedding.weight",),
        padding={"tokenizer": "!"},
    ),
    Architecture(
        config="sdxl",
        title="Stable Diffusion XL",
        pipeline=StableDiffusionXLPipeline,
        context=(f"{_UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", 2048),
        text_encoders=(
            "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
            "conditioner.embedders.1.model.positional_embedding",
        ),
        padding={"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
        class_embedding=True,
    ),
)

# Part of a tensor's name -> what such a file is. These have the UNet of a known architecture, but another use.
_VARIANTS = {"control_model.": "a ControlNet", "edm_mean": "Playground v2.5", "edm_vpred.": "CosXL"}
# The same for files with another UNet or none; the first that fits names the file, so LoRAs of anything come first.
_OTHERS = {
    "lora_": "a LoRA, which changes a model and is none",
    "hada_w1": "a LoRA, which changes a model and is none",
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "double_blocks.0.": "FLUX",
    "joint_blocks.0.": "Stable Diffusion 3",
    "down_blocks.0.": "one part of a model in diffusers layout, which loads from the whole folder only",
    "emb_params": "a textual inversion embedding",
    "decoder.conv_in.": "a VAE alone",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file says of itself.

    Attributes:
        prediction_type: what the UNet predicts, in diffusers' words.
        reason: why that was concluded.
        zero_snr: trained with noise up to zero signal (arXiv:2305.08891).
    """

    architecture: Architecture
    prediction_type: str
    reason: str
    zero_snr: bool

    @property
    def config(self) -> Path:
        """The folder of diffusers configs; of the SD2 models, those that predict v are the 768-pixel ones."""
        wide = self.architecture.config == "sd2" and self.prediction_type == V_PREDICTION
        return CONFIGS / ("sd2-v" if wide else self.architecture.config)


def load_single_file(path: Path, dtype: torch.dtype) -> DiffusionPipeline:
    """Load a checkpoint of SD1.x, SD2.x or SDXL on the CPU.

    Raises:
        ModelError: the file is damaged, is no complete checkpoint, or is one of another architecture.
    """
    checkpoint = inspect_checkpoint(path)
    architecture = checkpoint.architecture
    log.info("%s: %s; %s: %s", path.name, architecture.title, checkpoint.prediction_type, checkpoint.reason)
    try:
        pipeline: Any = architecture.pipeline.from_single_file(
            str(path),
            config=str(checkpoint.config),
            local_files_only=True,
            dtype=dtype,
            **{name: _tokenizer(padding) for name, padding in architecture.padding.items()},
        )
    except (SingleFileComponentError, ValueError, LookupError, RuntimeError) as error:
        raise ModelError(f"{path} is no complete {architecture.title} checkpoint: {_lack(error)}") from error
    check_complete(pipeline.components, f"{path} is no complete {architecture.title} checkpoint")
    _set_noise(pipeline, checkpoint)
    return pipeline


def inspect_checkpoint(path: Path) -> Checkpoint:
    """Tell what a file holds from its header.

    Raises:
        ModelError: as in `load_single_file`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} {describe_file(path, error)}") from error
    architecture = _recognise(path, shapes)
    prediction_type, reason = _prediction_type(path, architecture, shapes, metadata)
    return Checkpoint(architecture, prediction_type, reason, zero_snr="ztsnr" in shapes)


def _recognise(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    for architecture in ARCHITECTURES:
        name, width = architecture.context
        if shapes.get(name, ())[-1:] == (width,):
            _check_parts(path, architecture, shapes)
            return architecture
    found = _named(_OTHERS, shapes) or "of an architecture this worker does not know"
    raise ModelError(f"{path} is {found}; single files of {_titles()} load")


def _check_parts(path: Path, architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> None:
    channels = (*shapes.get(_CONV_IN, ()), 0, 0)[1]
    variant = _named(_VARIANTS, shapes)
    if channels != 4:
        variant = {8: "for instructed editing", 9: "for inpainting"}.get(channels, f"with {channels} input channels")
    elif not architecture.class_embedding and _CLASS_EMBEDDING in shapes:
        variant = "conditioned on pictures (unCLIP)"
    if variant:
        raise ModelError(f"{path} is {variant}, built on {architecture.title}; it cannot draw from a prompt here")
    missing = [name for name in architecture.text_encoders if name not in shapes]
    if missing:
        raise ModelError(f"{path} is {architecture.title} without a text encoder ({missing[0]} was expected)")
    if not any(name.startswith(("first_stage_model.decoder.", "vae.decoder.")) for name in shapes):
        raise ModelError(f"{path} is {architecture.title} without a VAE; use a version with the VAE baked in")


def _named(table: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    return next((title for part, title in table.items() if any(part in name for name in shapes)), None)


def _titles() -> str:
    return ", ".join(architecture.title for architecture in ARCHITECTURES)


def _prediction_type(
    path: Path, architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[str, str]:
    """What the UNet predicts, and why: the first of these that speaks.

    1. The owner: a `.yaml` of the same name beside the file, as in AUTOMATIC1111.
    2. A tensor named `v_pred`, the mark of SDXL models that predict v (NoobAI and ComfyUI's convention).
    3. The header's `modelspec.prediction_type` (Stability's ModelSpec; trainers write it).
    4. SD2 only: the spread of one bias of the last transformer block, which differs between Stability's two
       lines of SD2 models and their descendants. It is the measure and the limit that ComfyUI uses.
    5. epsilon, as everything else was trained.
    """
    if stated := _yaml_prediction(path.with_suffix(".yaml")):
        return stated, f"{path.stem}.yaml beside the file says so"
    if "v_pred" in shapes:
        return V_PREDICTION, "the file holds the mark v_pred"
    spec = metadata.get("modelspec.prediction_type", "").lower()
    if spec in _PREDICTIONS:
        return _PREDICTIONS[spec], f"the file's modelspec.prediction_type is {spec!r}"
    if architecture.config == "sd2" and _LAST_NORM_BIAS in shapes:
        return _sd2_prediction(path)
    return EPSILON, f"nothing says otherwise, and {architecture.title} was trained so"


def _yaml_prediction(path: Path) -> str | None:
    """The parameterization in a config of the original code, where leaving it out means eps."""
    if not path.is_file():
        return None
    text = path.read_text("utf-8", errors="replace")
    stated = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", text, re.MULTILINE)
    if stated:
        return _PREDICTIONS.get(stated[1].lower())
    return EPSILON if "LatentDiffusion" in text else None


def _sd2_prediction(path: Path) -> tuple[str, str]:
    with safe_open(path, framework="pt") as file:
        spread = file.get_tensor(_LAST_NORM_BIAS).float().std(correction=0).item()
    if spread > 0.09:
        return V_PREDICTION, f"the last norm's bias spreads by {spread:.3f}, above 0.09, as in SD2's 768-pixel models"
    return EPSILON, f"the last norm's bias spreads by {spread:.3f}, not above 0.09, as in SD2's 512-pixel models"


def _set_noise(pipeline: Any, checkpoint: Checkpoint) -> None:
    """Write what the file says of its noise into the scheduler's config, which also keeps what its class ignores."""
    config, noise = pipeline.scheduler.config, _noise(checkpoint)
    defaults = [name for name in config.get("_use_default_values", []) if name not in noise]
    pipeline.scheduler = type(pipeline.scheduler).from_config({**config, **noise, "_use_default_values": defaults})


def _noise(checkpoint: Checkpoint) -> dict[str, Any]:
    noise: dict[str, Any] = {"prediction_type": checkpoint.prediction_type}
    if checkpoint.zero_snr:
        # Only "trailing" steps begin where the signal is zero.
        noise |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return noise


def _tokenizer(padding: str) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(str(CONFIGS / "tokenizer"), pad_token=padding, local_files_only=True)


def _lack(error: Exception) -> str:
    if isinstance(error, NotImplementedError):  # torch's "Cannot copy out of meta tensor": nothing has filled it
        return "weights are missing"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return _first_line(error).split(". ")[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
