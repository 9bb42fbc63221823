"""CONTROLNETS -> the ControlNets by name, in the model's number format.

They are read from safetensors only, and checked to fit the model before the first job comes.
"""

import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

import diffusers

from worker.engine.adapters.controlnet_file import ControlNetFile, read_controlnet_file
from worker.engine.pipelines import find_denoiser, task_classes
from worker.errors import ModelError, SettingsError
from worker.models.adapters import AdapterCatalogue
from worker.models.capabilities import CONTROLLED, TEXT
from worker.models.checks import read_json
from worker.models.civitai import fetch_place
from worker.models.hub import CONFIG, first_line, hub_options, local_component, local_file
from worker.models.locate import ModelSource, find_component
from worker.models.variants import choose_weights, log_variant
from worker.settings import Settings

log = logging.getLogger("worker")

_WIDTHS = ("cross_attention_dim", "joint_attention_dim")  # of the text that a denoiser and its ControlNet attend to


def load_controlnets(catalogue: AdapterCatalogue, pipeline: Any, settings: Settings) -> dict[str, Any]:
    """The ControlNets by name, in the pipeline's number format, on the CPU.

    Raises:
        ModelError: one cannot be found or read.
        SettingsError: the model takes none, or not this one.
    """
    return {name: _controlnet(name, place, pipeline, settings) for name, place in catalogue.controlnets.items()}


def _controlnet(name: str, place: str, pipeline: Any, settings: Settings) -> Any:
    setting = f"CONTROLNETS: {name}"
    controlled = task_classes(type(pipeline)).get(TEXT + CONTROLLED)
    if controlled is None:
        raise SettingsError(f"{setting}: {type(pipeline).__name__} takes no ControlNet")
    try:
        source = find_component(fetch_place(place, settings))
        log.info("ControlNet %s: %s", name, source.reason)
        file = _read_file(source, settings) if source.is_file else None
        folder = local_component(source, settings, "CONTROLNETS") if file is None else file.path.parent
        entries = file.entries if file else read_json(folder / CONFIG)
        kind = getattr(diffusers, str(entries.get("_class_name")), None)
        if kind is None or not _is_for(kind, controlled):
            raise SettingsError(f"{setting}: {place} is {entries.get('_class_name')}, no ControlNet for this model")
        _check_width(setting, entries, pipeline)
        if file:
            return file.load(find_denoiser(pipeline), pipeline.dtype)
        weights = choose_weights((one.name for one in folder.iterdir()), settings.model_variant)
        variant = log_variant(f"ControlNet {name}", weights, settings.model_variant)
        return kind.from_pretrained(folder, dtype=pipeline.dtype, use_safetensors=True, variant=variant)
    except ModelError as error:
        raise ModelError(f"{setting}: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{setting}: {place} cannot be loaded: {first_line(error)}") from error


def _read_file(source: ModelSource, settings: Settings) -> ControlNetFile:
    path = local_file(source, hub_options(source, settings), "CONTROLNETS")
    return read_controlnet_file(path, path.name if source.kind == "file" else source.location)


def _is_for(kind: type, controlled: type) -> bool:
    """Whether the pipeline's class says that it takes such a ControlNet."""
    taken = str(inspect.signature(controlled).parameters["controlnet"].annotation)
    return re.search(rf"\b{kind.__name__}\b", taken) is not None


def _check_width(setting: str, entries: Mapping[str, Any], pipeline: Any) -> None:
    denoiser = find_denoiser(pipeline)
    for width in _WIDTHS:
        came, needed = entries.get(width), denoiser.config.get(width)
        if came is not None and needed is not None and came != needed:
            raise SettingsError(f"{setting}: it attends to text of width {came}, this model's is {needed}")
