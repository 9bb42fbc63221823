"""A single `.safetensors` checkpoint in the original (CompVis, Stability) layout -> a diffusers pipeline.

The file's header says which architecture it is. diffusers converts the weights; the configs it needs lie in `configs/`,
so nothing is asked of the network. Such files carry no safety checker.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import SingleFileComponentError, create_diffusers_clip_model_from_ldm
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer

from worker.engine.load.checkpoint import CONFIGS, Checkpoint, inspect_checkpoint, inspect_refiner
from worker.engine.load.completeness import check_complete
from worker.engine.weights import check_weights
from worker.errors import ModelError

log = logging.getLogger("worker")


def load_single_file(path: Path, dtype: torch.dtype, name: str = "") -> DiffusionPipeline:
    """Load a checkpoint of SD1.x, SD2.x or SDXL on the CPU.

    Args:
        name: as in `inspect_checkpoint`.

    Raises:
        ModelError: the file is damaged, is no complete checkpoint, or is one of another architecture.
    """
    checkpoint = inspect_checkpoint(path, name)
    architecture = checkpoint.architecture
    title = f"{architecture.title}, for inpainting" if checkpoint.inpaints else architecture.title
    log.info("%s: %s; %s: %s", path.name, title, checkpoint.prediction_type, checkpoint.reason)
    parts: dict[str, Any] = {name: _tokenizer(padding) for name, padding in architecture.padding.items()}
    try:
        if checkpoint.renamed:
            parts["text_encoder"] = read_renamed(path, checkpoint, dtype)
        if checkpoint.inpaints:
            parts["unet"] = read_unet(path, checkpoint, dtype)
        pipeline: Any = architecture.pipeline.from_single_file(
            str(path),
            config=str(checkpoint.config),
            local_files_only=True,
            dtype=dtype,
            **parts,
        )
    except (SingleFileComponentError, ValueError, LookupError, RuntimeError) as error:
        raise ModelError(f"{path} is no complete {architecture.title} checkpoint: {_lack(error)}") from error
    check_complete(pipeline.components, f"{path} is no complete {architecture.title} checkpoint")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            check_weights(part, str(path))
    _set_noise(pipeline, checkpoint)
    return pipeline


def load_refiner_file(path: Path, dtype: torch.dtype, shared: Mapping[str, Any]) -> StableDiffusionXLImg2ImgPipeline:
    """Load SDXL's refiner on the CPU.

    Args:
        shared: the parts that are the base model's.

    Raises:
        ModelError: the file is damaged, not complete, or no refiner.
    """
    unet, config = load_refiner_unet(path, dtype), CONFIGS / "sdxl-refiner"
    scheduler = EulerDiscreteScheduler.from_config(EulerDiscreteScheduler.load_config(config, subfolder="scheduler"))
    return StableDiffusionXLImg2ImgPipeline(
        **shared,
        unet=unet,
        scheduler=scheduler,
        text_encoder=None,
        tokenizer=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


def load_refiner_unet(path: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """The UNet of a refiner's file, the one part of it that the base model has not.

    Raises:
        ModelError: as in `load_refiner_file`.
    """
    inspect_refiner(path)
    log.info("%s: the SDXL refiner", path.name)
    what = f"{path} is no complete SDXL refiner"
    options = {"config": str(CONFIGS / "sdxl-refiner"), "subfolder": "unet", "local_files_only": True}
    try:
        unet = UNet2DConditionModel.from_single_file(str(path), dtype=dtype, **options)
    except (SingleFileComponentError, ValueError, LookupError, RuntimeError) as error:
        raise ModelError(f"{what}: {_lack(error)}") from error
    check_complete({"unet": unet}, what)
    return unet


def read_renamed(path: Path, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The first text encoder of a file that has other names for its tensors."""
    example = next(iter(checkpoint.renamed))
    log.info("%s: the text encoder's tensors have other names than usual, such as %s", path.name, example)
    with safe_open(path, framework="pt") as file:
        weights = {usual: file.get_tensor(name) for name, usual in checkpoint.renamed.items()}
    config = {"config": str(checkpoint.config), "subfolder": "text_encoder", "local_files_only": True}
    return create_diffusers_clip_model_from_ldm(CLIPTextModel, weights, torch_dtype=dtype, **config)


def read_unet(path: Path, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The UNet of a file, for as many input channels as it has there."""
    options = {"subfolder": "unet", "local_files_only": True, "in_channels": checkpoint.inputs}
    return UNet2DConditionModel.from_single_file(str(path), config=str(checkpoint.config), dtype=dtype, **options)


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
