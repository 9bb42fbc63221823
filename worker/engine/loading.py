"""Files -> a pipeline on its device, ready to draw, and the `Model` that requests are checked against.

Every automatic choice is logged once, with its reason. Nothing here knows jobs.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoPipelineForText2Image, DiffusionPipeline

from worker import schedulers
from worker.engine.single_file import load_single_file
from worker.errors import ModelError, SettingsError
from worker.families import Family, Model, recognise
from worker.models import Source, find_model
from worker.settings import Settings

log = logging.getLogger("worker")


@dataclass(frozen=True)
class Engine:
    """A loaded model.

    Attributes:
        pipeline: the diffusers pipeline, on `device`.
        model: what it can do, for the request parser.
        scheduler_config: the model's own scheduler config as loaded; every scheduler is built from it.
        schedulers: those built so far.
    """

    pipeline: DiffusionPipeline
    model: Model
    device: torch.device
    scheduler_config: Mapping[str, Any]
    schedulers: dict[tuple[Any, ...], Any] = field(default_factory=dict)


def load(settings: Settings) -> Engine:
    """Load the model that the settings name.

    Raises:
        ModelError: it cannot be found or read, or cannot draw from a prompt.
        SettingsError: a setting does not fit this model.
    """
    started = time.perf_counter()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    source = find_model(settings)
    log.info("model %s: %s", source.name, source.reason)
    device, device_reason = choose_device()
    dtype, dtype_reason = choose_dtype(settings, device)
    log.info("device %s: %s; %s: %s", device, device_reason, dtype, dtype_reason)
    pipeline = _read(source, settings, dtype)
    pipeline.set_progress_bar_config(disable=True)
    scheduler_config = MappingProxyType(dict(pipeline.scheduler.config))
    model = _describe(pipeline, source, settings)
    pipeline.to(device)
    log.info("loaded %s (%s) in %.1f s", model.name, model.family.title, time.perf_counter() - started)
    return Engine(pipeline, model, device, scheduler_config)


def choose_device() -> tuple[torch.device, str]:
    """The device to compute on, and why."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    return torch.device("cpu"), "no CUDA device was found"


def choose_dtype(settings: Settings, device: torch.device) -> tuple[torch.dtype, str]:
    """The number format of the weights, and why."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype), "DTYPE says so"
    if device.type == "cpu":
        return torch.float32, "CPUs compute half precision slowly"
    return torch.float16, "these families are published and fastest in half precision"


def _read(source: Source, settings: Settings, dtype: torch.dtype) -> DiffusionPipeline:
    try:
        if source.kind == "file":
            return load_single_file(Path(source.location), dtype)
        return AutoPipelineForText2Image.from_pretrained(
            source.location, dtype=dtype, use_safetensors=True, **_from_pretrained_options(source, settings)
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{source.location} cannot be loaded: {reason}") from error


def _from_pretrained_options(source: Source, settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"variant": settings.model_variant}
    if settings.safety_checker == "off":
        options |= {"safety_checker": None, "requires_safety_checker": False}
    if source.kind == "hub":
        token = settings.hf_token
        options |= {"revision": settings.model_revision, "token": token.get_secret_value() if token else None}
    return options


def _describe(pipeline: DiffusionPipeline, source: Source, settings: Settings) -> Model:
    def trait(key: str) -> object:
        component, entry = key.split(".")
        return getattr(pipeline, component).config.get(entry)

    kind = type(pipeline).__name__
    family = recognise(kind, trait)
    if family is None:
        raise ModelError(f"{source.name} is a {kind}, which this worker does not know how to run")
    if trait("unet.in_channels") != trait("vae.latent_channels"):
        raise ModelError(f"{source.name} cannot draw from a prompt alone; it is made for inpainting or editing")
    side = trait("unet.sample_size")
    if not isinstance(side, int):
        raise ModelError(f"{source.name}: unet.sample_size is {side}; an integer was expected")
    side *= pipeline.vae_scale_factor
    prediction = str(pipeline.scheduler.config.get("prediction_type", "epsilon"))
    return Model(
        name=source.name,
        family=family,
        width=side,
        height=side,
        prediction_type=prediction,
        scheduler=_default_scheduler(pipeline, family, prediction, settings),
        safety_checker=getattr(pipeline, "safety_checker", None) is not None,
        max_pixels=settings.max_pixels or family.max_pixels,
        max_steps=settings.max_steps or family.max_steps,
        max_images=settings.max_images or family.max_images,
    )


def _default_scheduler(
    pipeline: DiffusionPipeline, family: Family, prediction: str, settings: Settings
) -> schedulers.Scheduler:
    name = settings.default_scheduler or family.scheduler
    if name is None:
        return schedulers.of_class(type(pipeline.scheduler).__name__, family.noise)
    row = schedulers.find(name)
    if row is None or not schedulers.usable(row, family.noise, prediction):
        allowed = ", ".join(schedulers.names(family.noise, prediction))
        raise SettingsError(f"DEFAULT_SCHEDULER: got {name!r}; {family.title} takes one of {allowed}")
    return row
