"""The oracle: the same model in diffusers' own pipelines, with nothing of the worker's.

The options that each scheduler name stands for are written here once more, so that a change of the worker's table is
noticed.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image

from tests.helpers.drawing import SMALL

KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL = {"use_exponential_sigmas": True}
BETA = {"use_beta_sigmas": True}
TRAILING = {"timestep_spacing": "trailing"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
THIRD = {"solver_order": 3}
SINGLE = {"lower_order_final": True}
UNCLIPPED = {"clip_sample": False}
# Beside what the model was trained with; everything else is the class's default.
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "LMS": ("LMSDiscreteScheduler", {}),
    "LMS Karras": ("LMSDiscreteScheduler", KARRAS),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler Karras": ("EulerDiscreteScheduler", KARRAS),
    "Euler Exponential": ("EulerDiscreteScheduler", EXPONENTIAL),
    "Euler Beta": ("EulerDiscreteScheduler", BETA),
    "Euler SGM Uniform": ("EulerDiscreteScheduler", TRAILING),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Euler a SGM Uniform": ("EulerAncestralDiscreteScheduler", TRAILING),
    "Heun": ("HeunDiscreteScheduler", {}),
    "Heun Karras": ("HeunDiscreteScheduler", KARRAS),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 Karras": ("KDPM2DiscreteScheduler", KARRAS),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM2 a Karras": ("KDPM2AncestralDiscreteScheduler", KARRAS),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", KARRAS),
    "DPM++ 2M Exponential": ("DPMSolverMultistepScheduler", EXPONENTIAL),
    "DPM++ 2M Beta": ("DPMSolverMultistepScheduler", BETA),
    "DPM++ 2M SGM Uniform": ("DPMSolverMultistepScheduler", TRAILING),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", SDE),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", SDE | KARRAS),
    "DPM++ 2M SDE Exponential": ("DPMSolverMultistepScheduler", SDE | EXPONENTIAL),
    "DPM++ 2M SDE SGM Uniform": ("DPMSolverMultistepScheduler", SDE | TRAILING),
    "DPM++ 3M SDE": ("DPMSolverMultistepScheduler", SDE | THIRD),
    "DPM++ 3M SDE Karras": ("DPMSolverMultistepScheduler", SDE | THIRD | KARRAS),
    "DPM++ 3M SDE Exponential": ("DPMSolverMultistepScheduler", SDE | THIRD | EXPONENTIAL),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", SINGLE),
    "DPM++ 2S Karras": ("DPMSolverSinglestepScheduler", SINGLE | KARRAS),
    "DPM++ 2S a": ("DPMSolverSinglestepScheduler", SINGLE),
    "DPM++ 2S a Karras": ("DPMSolverSinglestepScheduler", SINGLE | KARRAS),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", SINGLE | SDE),
    "DPM++ SDE Karras": ("DPMSolverSinglestepScheduler", SINGLE | SDE | KARRAS),
    "DEIS": ("DEISMultistepScheduler", {}),
    "DEIS Karras": ("DEISMultistepScheduler", KARRAS),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "UniPC Karras": ("UniPCMultistepScheduler", KARRAS),
    "UniPC SGM Uniform": ("UniPCMultistepScheduler", TRAILING),
    "DDIM": ("DDIMScheduler", UNCLIPPED),
    "DDIM SGM Uniform": ("DDIMScheduler", UNCLIPPED | TRAILING),
    "DDPM": ("DDPMScheduler", UNCLIPPED),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LCM": ("LCMScheduler", UNCLIPPED),
    "IPNDM": ("IPNDMScheduler", {}),
    "Flow Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Flow Euler Karras": ("FlowMatchEulerDiscreteScheduler", KARRAS),
    "Flow Euler Exponential": ("FlowMatchEulerDiscreteScheduler", EXPONENTIAL),
    "Flow Euler Beta": ("FlowMatchEulerDiscreteScheduler", BETA),
}
# What a config says of the model's training, and no scheduler's name does.
TRAINING = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "shift_terminal",
    "time_shift_type",
)


# What tests ask of UNets that compare with `plain`; transformers have a scheduler of their own.
EULER = {"scheduler": "Euler"}


def plain(model: Path, kind: str | None = None, **extra: Any) -> Any:
    """The pipeline of this class, or the one that the model names, with the Euler scheduler for UNets.

    Args:
        extra: further modules, such as `controlnet`.
    """
    loader = getattr(diffusers, kind) if kind else DiffusionPipeline
    pipeline = loader.from_pretrained(model, **extra)
    if hasattr(pipeline, "unet"):
        pipeline.scheduler = scheduler_of(pipeline, "Euler")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_plain(folder: Path) -> DiffusionPipeline:
    """The model in this folder."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def around(pipeline: DiffusionPipeline, class_name: str | None = None, **parts: Any) -> DiffusionPipeline:
    """A pipeline of the same or another class around the same parts, so that the next test finds them as they were."""
    kind = getattr(diffusers, class_name) if class_name else type(pipeline)
    unchecked = {"requires_safety_checker": False} if "safety_checker" in pipeline.components else {}
    other = kind(**{**pipeline.components, **parts}, **unchecked)
    other.set_progress_bar_config(disable=True)
    return other


def scheduler_of(pipeline: DiffusionPipeline, name: str) -> Any:
    """A new scheduler of this name for the pipeline's model."""
    return scheduler_for(pipeline.scheduler.config, name)


def scheduler_for(config: Mapping[str, Any], name: str) -> Any:
    """A new scheduler of this name for a model with this scheduler config; nothing but its training is read of it."""
    class_name, options = EXPECTED[name]
    kind = getattr(diffusers, class_name)
    told = (config.keys() - set(config.get("_use_default_values", []))) & inspect.signature(kind).parameters.keys()
    return kind(**{name: config[name] for name in TRAINING if name in told} | options)


def with_scheduler(pipeline: DiffusionPipeline, name: str) -> DiffusionPipeline:
    """The pipeline with another scheduler."""
    return around(pipeline, scheduler=scheduler_of(pipeline, name))


def run(pipeline: DiffusionPipeline, seed: int = SMALL["seed"], **call: Any) -> Any:
    """What the pipeline returns for exactly this call: pictures or latents."""
    torch.manual_seed(seed)  # for what a pipeline samples without the generator
    return pipeline(**call, generator=torch.Generator().manual_seed(seed)).images


def plainly(pipeline: DiffusionPipeline, seed: int = SMALL["seed"], **fields: Any) -> Image:
    """The picture for a call with these fields; what is not given is small, and None leaves a field out."""
    call = {name: value for name, value in SMALL.items() if name != "seed"} | fields
    return run(pipeline, seed, **{name: value for name, value in call.items() if value is not None})[0]
