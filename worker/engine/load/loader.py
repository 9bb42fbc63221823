"""Files -> a pipeline on its device, ready to draw, and the `Capabilities` that requests are checked against.

Every automatic choice is logged once, with its reason. Nothing here knows jobs.
"""

import logging
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoPipelineForText2Image,
    DiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.pipelines import pipeline_utils
from diffusers.utils import hub_utils

from worker.engine.adapters.controlnets import load_controlnets
from worker.engine.adapters.embeddings import load_bundled_words, load_words
from worker.engine.adapters.ip_adapter import load_ip_adapter
from worker.engine.adapters.loras import LoraManager
from worker.engine.decoder import guard_decoder
from worker.engine.denoiser.runner import DenoiserRunner
from worker.engine.engine import Engine
from worker.engine.load.completeness import check_complete
from worker.engine.load.describe import describe
from worker.engine.load.quantize import check_quantize, quantization_options
from worker.engine.load.single_file import load_single_file
from worker.engine.load.vae import replace_vae
from worker.engine.memory import place_weights, plan_memory
from worker.engine.pipelines import find_denoiser, needs_a_prior
from worker.engine.preview import Previewer
from worker.engine.recovery import Snapshot, unique_modules
from worker.errors import ModelError, SettingsError
from worker.models.adapters import AdapterCatalogue, find_adapters
from worker.models.checks import SAFETY_CHECKER, check_component, read_json
from worker.models.download_log import fetch_file, fetch_snapshot
from worker.models.hub import download, first_line, hub_options, local_file, make_lora_fetcher
from worker.models.locate import ModelSource, find_model
from worker.settings import Settings

log = logging.getLogger("worker")

INDEX = DiffusionPipeline.config_name  # model_index.json
_UNREADABLE = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError)  # from files not as published


def load(settings: Settings, device: torch.device) -> Engine:
    """Load the model that the settings name, and what they offer beside it, to compute on this device.

    Raises:
        ModelError: something cannot be found or read, or the model cannot draw from a prompt.
        SettingsError: a setting does not fit this model.
    """
    started = time.perf_counter()
    _quiet_libraries()
    _log_downloads()
    catalogue = find_adapters(settings)
    source = _find("MODEL_NAME", settings.model_name, settings.model_revision)
    log.info("model %s: %s", source.name, source.reason)
    check_quantize(settings, source, device)
    pipeline = _read(source, settings, device)
    replace_vae(pipeline, settings)
    pipeline.set_progress_bar_config(disable=True)
    engine = _assemble(pipeline, source.name, settings, catalogue, device)
    title, seconds = engine.capabilities.family.title, time.perf_counter() - started
    log.info("loaded %s (%s) in %.1f s", engine.capabilities.name, title, seconds)
    return engine


def _quiet_libraries() -> None:
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()


def _log_downloads() -> None:
    """Have diffusers fetch as this worker does, which tells of it; it offers no way to pass a progress bar on."""
    pipeline_utils.snapshot_download = hub_utils.snapshot_download = fetch_snapshot
    hub_utils.hf_hub_download = fetch_file


def _assemble(
    pipeline: Any, name: str, settings: Settings, catalogue: AdapterCatalogue, device: torch.device
) -> Engine:
    """The model with what stands beside it, all of it where the memory plan wants it."""
    model = describe(pipeline, name, settings, catalogue)
    refiner = _read_refiner(pipeline, settings) if settings.refiner_name else None
    controlnets = load_controlnets(catalogue, pipeline, settings)
    words, bundled = load_words(catalogue, pipeline), load_bundled_words(catalogue, pipeline)
    pipelines = [part for part in (pipeline, refiner) if part is not None]
    runners = tuple(DenoiserRunner(find_denoiser(one)) for one in pipelines)
    ip_adapter = load_ip_adapter(catalogue, pipeline, runners[0], settings)
    nets = list(controlnets.values())
    wanted = None if settings.offload == "auto" else settings.offload
    plan = plan_memory(model, pipelines, nets, wanted, device, settings.quantize)
    log.info("memory: %s", plan.reason)
    release = place_weights(pipelines, nets, plan, device)
    if hasattr(pipeline, "vae"):
        guard_decoder(pipeline.vae)
    if ip_adapter is not None:
        ip_adapter.detach()
    return Engine(
        pipeline=pipeline,
        capabilities=model,
        device=device,
        runners=runners,
        refiner=refiner,
        loras=LoraManager(pipeline, runners[0], catalogue.loras, make_lora_fetcher(settings), bundled),
        controlnets=MappingProxyType(controlnets),
        ip_adapter=ip_adapter,
        words=words.learned,
        word_notes=words.notes,
        bundled_words=bundled,
        previewer=Previewer(pipeline),
        release=release,
        snapshot=Snapshot(unique_modules(pipelines, nets), resident=plan.offload == "none"),
        scheduler_config=MappingProxyType(dict(pipeline.scheduler.config)),
    )


def choose_device() -> torch.device:
    """The device to compute on; the reason is logged."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    log.info("device %s: %s", device, torch.cuda.get_device_name() if cuda else "no CUDA device was found")
    return device


def choose_dtype(settings: Settings, device: torch.device, transformer: bool) -> tuple[torch.dtype, str]:
    """The number format of the weights, and why.

    Args:
        transformer: whether a diffusion transformer denoises, rather than a UNet.
    """
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype), "DTYPE says so"
    if device.type == "cpu":
        return torch.float32, "CPUs compute half precision slowly"
    if transformer and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "transformers overflow in float16"
    return torch.float16, "UNets are published in half precision, and fastest in it"


def _find(setting: str, name: str | None, revision: str | None) -> ModelSource:
    try:
        return find_model(name, revision)
    except ModelError as error:
        raise ModelError(f"{setting}: {error}") from error


def _read(source: ModelSource, settings: Settings, device: torch.device) -> Any:
    hub = hub_options(source, settings, settings.model_revision)
    if source.kind in ("file", "hub file"):
        return load_single_file(local_file(source, hub), _log_dtype(settings, device, transformer=False))
    folder = Path(source.location)
    index = folder / INDEX if source.kind == "folder" else download(source.location, INDEX, hub)
    components = read_json(index)
    if components.get("requires_aesthetics_score"):
        raise ModelError(f"{source.name} is SDXL's refiner: name it in REFINER_NAME, beside a base model")
    if needs_a_prior(str(components.get("_class_name"))):
        raise ModelError(f"{source.name} needs a second model, its prior, which this worker does not load")
    options = {**hub, "variant": settings.model_variant, "use_safetensors": True}
    options["dtype"] = _log_dtype(settings, device, "transformer" in components)
    options |= quantization_options(settings, components, options["dtype"])
    options |= {name: None for name, entry in components.items() if entry == [None, None]}
    if settings.safety_checker == "off" and SAFETY_CHECKER in components:
        options |= {SAFETY_CHECKER: None, "requires_safety_checker": False}
    elif source.kind == "folder" and any(components.get(SAFETY_CHECKER) or ()):
        _check_safety_checker(folder / SAFETY_CHECKER)
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(source.location, **options)
    except _UNREADABLE as error:
        raise ModelError(f"{source.location} cannot be loaded: {_why(error)}") from error
    check_complete(pipeline.components, f"{source.location} is no complete model")
    return pipeline


def _check_safety_checker(folder: Path) -> None:
    try:
        check_component(folder)
    except ModelError as error:
        raise ModelError(f"{error}; SAFETY_CHECKER=off loads without it") from error


def _read_refiner(base: Any, settings: Settings) -> StableDiffusionXLImg2ImgPipeline:
    if not isinstance(base, StableDiffusionXLPipeline):
        raise SettingsError(f"REFINER_NAME: only Stable Diffusion XL has a refiner; this is {type(base).__name__}")
    source = _find("REFINER_NAME", settings.refiner_name, None)
    log.info("refiner %s: %s", source.name, source.reason)
    shared = {name: base.components[name] for name in ("text_encoder_2", "tokenizer_2", "vae")}
    options = {**hub_options(source, settings, None), "variant": settings.model_variant, "use_safetensors": True}
    options |= quantization_options(settings, {"unet": ["diffusers", "UNet2DConditionModel"]}, base.dtype)
    try:
        refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
            source.location, dtype=base.dtype, **shared, **options
        )
    except _UNREADABLE as error:
        raise ModelError(f"{source.location} cannot be loaded as a refiner: {_why(error)}") from error
    check_complete(refiner.components, f"{source.location} is no complete refiner")
    refiner.set_progress_bar_config(disable=True)
    return refiner


def _why(error: Exception) -> str:
    # Both libraries advise then how to go on with weights drawn at random.
    return "weights do not fit its config" if "ignore_mismatched_sizes" in str(error) else first_line(error)


def _log_dtype(settings: Settings, device: torch.device, transformer: bool) -> torch.dtype:
    dtype, reason = choose_dtype(settings, device, transformer)
    log.info("%s: %s", dtype, reason)
    return dtype
