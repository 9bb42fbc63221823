"""Files -> a pipeline on its device, ready to draw, and the `Capabilities` that requests are checked against.

Every automatic choice is logged once, with its reason. Nothing here knows jobs.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers

from worker.engine.adapters.controlnets import describe_controlnets, load_controlnets
from worker.engine.adapters.embeddings import Words, load_bundled_words, load_words
from worker.engine.adapters.ip_adapter import load_ip_adapter
from worker.engine.adapters.loras import LoraFiles, LoraManager
from worker.engine.decoder import DecoderGuard, convert_on_device
from worker.engine.denoiser.graphs import Compiler
from worker.engine.denoiser.runner import DecoderRunner, PassRunner
from worker.engine.engine import Engine
from worker.engine.grouping import find_waiting, group_devices, limit_to_main_memory
from worker.engine.load.acceleration import (
    choose_batch_size,
    choose_graphs,
    lay_out,
    make_compiler,
    run_others,
    wants_graphs,
)
from worker.engine.load.chat_templates import bound_chat_templates
from worker.engine.load.completeness import check_complete
from worker.engine.load.constants import keep_constants
from worker.engine.load.copies import Parts, copy_parts
from worker.engine.load.describe import describe
from worker.engine.load.devices import on_device
from worker.engine.load.dtype import choose_dtype
from worker.engine.load.fp8 import keep_in_fp8
from worker.engine.load.glm_image import mend_glm_image
from worker.engine.load.mapped import copy_mapped_weights
from worker.engine.load.pretrained import load_pretrained
from worker.engine.load.quantize import check_quantize
from worker.engine.load.refiner import load_refiner
from worker.engine.load.single_file import load_single_file
from worker.engine.load.vae import replace_vae
from worker.engine.memory import place_weights, plan_memory
from worker.engine.memory_plan import MemoryPlan
from worker.engine.pipelines import find_denoiser, stay_on, turn_to_inpainting
from worker.engine.preview import Previewer
from worker.engine.recovery import Snapshot, unique_modules
from worker.engine.refusals import Refusals
from worker.engine.writing import Writing
from worker.errors import ModelError, SettingsError
from worker.files import settle_temporary_folder
from worker.models.adapters import AdapterCatalogue, find_adapters
from worker.models.capabilities import Capabilities
from worker.models.civitai import fetch_place
from worker.models.hub import hub_options, local_file, make_lora_fetcher
from worker.models.locate import ModelSource, find_base, find_model
from worker.settings import Settings

log = logging.getLogger("worker")


def load(settings: Settings, device: torch.device) -> Engine:
    """As `load_all`, for one device."""
    (engine,) = load_all(settings, [device])
    return engine


def load_all(settings: Settings, devices: Sequence[torch.device]) -> list[Engine]:
    """Load the model that the settings name, and what they offer beside it; an engine for each of these devices.

    Raises:
        ModelError: something cannot be found or read, or the model cannot draw from a prompt.
        SettingsError: a setting does not fit this model.
    """
    started = time.perf_counter()
    _quiet_libraries()
    bound_chat_templates()
    if note := settle_temporary_folder():
        log.warning(note)
    catalogue = find_adapters(settings)
    source = _find(settings)
    log.info("model %s: %s", source.name, source.reason)
    check_quantize(settings, source, devices[0])
    engines = list(_assemble_all(source, settings, catalogue, devices))
    title, seconds = engines[0].capabilities.family.title, time.perf_counter() - started
    log.info("loaded %s (%s) in %.1f s", engines[0].capabilities.name, title, seconds)
    return engines


def _assemble_all(
    source: ModelSource, settings: Settings, catalogue: AdapterCatalogue, devices: Sequence[torch.device]
) -> Iterator[Engine]:
    """The model is read once, but for weights that bitsandbytes packs on the device which they are for."""
    with on_device(devices[0]):
        model = _read_model(source, settings, catalogue, devices[0])
    parts = model.parts
    wanted = None if settings.offload == "auto" else settings.offload
    asked = model.capabilities, parts.pipelines, parts.nets, wanted
    groups = group_devices(*asked, devices, settings.quantize)
    waiting = find_waiting(*asked, groups, settings.quantize)
    if len(groups) > 1 and (waiting or devices[0].type == "cpu"):  # before there are several who would each copy them
        copy_mapped_weights(unique_modules(parts.pipelines, parts.nets))
    first, *others = limit_to_main_memory(groups, waiting)
    packed = settings.quantize in ("4bit", "8bit")
    copies = [None if packed else copy_parts(parts) for _ in others]
    with on_device(first[0]):
        engine = _assemble(model, settings, catalogue, first)
    yield engine
    for group, copied in zip(others, copies, strict=True):
        with on_device(group[0]):
            if copied is None:
                parts = _read_model(source, settings, catalogue, group[0]).parts
            else:
                if len(group) == 1:
                    copied.bring(group[0])
                parts = copied.parts
            engine = _assemble(replace(model, parts=parts), settings, catalogue, group)
        yield engine


@dataclass(frozen=True)
class _Model:
    """What was read, before it is placed anywhere; but for the parts, all of its engines share it.

    Attributes:
        words, bundled: of textual inversion, of its own and of LoRAs.
        open_compiler: makes it at the first call.
        refusals: what any of its engines has been seen to fail at.
    """

    parts: Parts
    capabilities: Capabilities
    words: Words
    bundled: Mapping[str, Mapping[str, str]]
    open_compiler: Callable[[], Compiler]
    lora_files: LoraFiles
    refusals: Refusals = field(default_factory=Refusals)


def _read_model(source: ModelSource, settings: Settings, catalogue: AdapterCatalogue, device: torch.device) -> _Model:
    pipeline = turn_to_inpainting(_read(source, settings, device))
    if settings.quantize == "fp8":
        keep_in_fp8(pipeline, device)
    replace_vae(pipeline, settings)
    pipeline.set_progress_bar_config(disable=True)
    model = describe(pipeline, source.name, settings, catalogue)
    refiner = load_refiner(pipeline, settings)
    controlnets = load_controlnets(catalogue, pipeline, settings)
    kinds = {**model.control_kinds, **describe_controlnets(catalogue, controlnets)}
    model = replace(model, control_kinds=MappingProxyType(kinds))
    words, bundled = load_words(catalogue, pipeline), load_bundled_words(catalogue, pipeline)
    open_compiler = cache(partial(make_compiler, settings, device))
    lora_files = LoraFiles(catalogue.loras, make_lora_fetcher(settings))
    parts = Parts(pipeline, refiner, MappingProxyType(controlnets))
    return _Model(parts, model, words, bundled, open_compiler, lora_files)


def _quiet_libraries() -> None:
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()


def _assemble(read: _Model, settings: Settings, catalogue: AdapterCatalogue, devices: Sequence[torch.device]) -> Engine:
    """The model with what stands beside it, all of it where the memory plan of these devices wants it."""
    device = devices[0]
    model, pipeline, pipelines = read.capabilities, read.parts.pipeline, read.parts.pipelines
    for one in pipelines:
        convert_on_device(one)
        mend_glm_image(one)
    denoisers = [PassRunner("denoiser", find_denoiser(one)) for one in pipelines]
    runners = (*denoisers, *run_others(pipeline, read.parts.controlnets))
    writing = Writing(unique_modules(pipelines, ()))
    ip_adapter = load_ip_adapter(catalogue, pipeline, runners[0], settings)
    if ip_adapter is not None:
        check_complete({"the image encoder": pipeline.image_encoder}, "IP_ADAPTER_ENCODER: it is not complete")
    nets = read.parts.nets
    plan, release = _place(read, settings, devices)
    graphs = choose_graphs(settings, plan, device, read.open_compiler)
    lay_out(graphs, unique_modules(pipelines, nets))
    if graphs is not None:
        keep_constants(find_denoiser(pipeline), device)
    for runner in runners:
        runner.graphs = None if plan.graphs == "denoiser" and isinstance(runner, DecoderRunner) else graphs
    guard = DecoderGuard()
    if hasattr(pipeline, "vae"):
        guard.watch(pipeline.vae)
    if ip_adapter is not None:
        ip_adapter.detach()
    return Engine(
        pipeline=pipeline,
        capabilities=model,
        device=device,
        runners=runners,
        refiner=read.parts.refiner,
        loras=LoraManager(pipeline, runners[0], read.lora_files, read.bundled),
        controlnets=read.parts.controlnets,
        ip_adapter=ip_adapter,
        words=read.words.learned,
        word_notes=read.words.notes,
        bundled_words=read.bundled,
        previewer=Previewer(pipeline),
        batch_size=choose_batch_size(pipeline, model, settings, plan),
        release=release,
        graphs=graphs,
        snapshot=Snapshot(unique_modules(pipelines, nets), resident=plan.offload == "none"),
        scheduler_config=MappingProxyType(dict(pipeline.scheduler.config)),
        writing=writing,
        decoder_guard=guard,
        refusals=read.refusals,
    )


def _place(read: _Model, settings: Settings, devices: Sequence[torch.device]) -> tuple[MemoryPlan, Callable[[], None]]:
    """Have the weights where the memory plan wants them; it, and what frees the devices of those that travel."""
    pipelines, nets = read.parts.pipelines, read.parts.nets
    wanted = None if settings.offload == "auto" else settings.offload
    graphs = wants_graphs(settings)
    plan = plan_memory(read.capabilities, pipelines, nets, wanted, devices, settings.quantize, graphs)
    if devices[0].type != "cpu":  # where there is nothing to choose
        log.info("memory: %s", plan.reason)
    release = place_weights(pipelines, nets, plan, devices)
    copy_mapped_weights(unique_modules(pipelines, nets))
    if plan.offload == "none":
        for one in pipelines:
            stay_on(one, devices[0])
    for part in unique_modules(pipelines, nets):  # a LoRA would set it so, and what is compiled by then would not fit
        part.requires_grad_(False)
    return plan, release


def _read(source: ModelSource, settings: Settings, device: torch.device) -> Any:
    if source.is_file:
        if settings.transformer_name is not None:
            raise SettingsError(
                f"TRANSFORMER_NAME: {source.name} is a single file; it goes with a folder or repository"
            )
        file = local_file(source, hub_options(source, settings))
        return load_single_file(file, choose_dtype(settings, device, transformer=False), settings.model_name or "")
    return load_pretrained(source, settings, device)


def _find(settings: Settings) -> ModelSource:
    try:
        name = settings.model_name and fetch_place(settings.model_name, settings)
        find = find_model if settings.transformer_name is None else find_base
        return find(name, settings.model_revision)
    except ModelError as error:
        raise ModelError(f"MODEL_NAME: {error}") from error
