"""CONTROLNETS -> the ControlNets by name, in the model's number format.

They are read from safetensors only, and checked to fit the model before the first job comes.
"""

import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
from diffusers import ControlNetModel, ControlNetUnionModel, QwenImageControlNetModel, SD3ControlNetModel

from worker.engine.adapters.controlnet_file import ControlNetFile, read_controlnet_file
from worker.engine.adapters.flux_inpainting import FluxInpaintingControlNetModel
from worker.engine.pipelines import find_denoiser, follows, task_classes, union_class
from worker.engine.unreadable import explain_unreadable
from worker.engine.weights import check_weights, limit_weights
from worker.errors import ModelError, SettingsError
from worker.models.adapters import AdapterCatalogue
from worker.models.capabilities import CONTROLLED, TEXT
from worker.models.civitai import fetch_place
from worker.models.control_kinds import FLUX_MODES, REPAINT, SDXL_MODES, ControlKind, name_modes
from worker.models.hub import CONFIG, hub_options, local_component, local_file
from worker.models.json_file import read_json
from worker.models.locate import ModelSource, find_component
from worker.models.variants import choose_weights, log_variant
from worker.models.view import show_component
from worker.settings import Settings

log = logging.getLogger("worker")

# Entries in which those that are followed at once must agree: diffusers reads them of the first one only.
_UNLIKE = (
    "conditioning_embedding_channels",
    "extra_condition_channels",
    "extra_conditioning_channels",
    "force_zeros_for_pooled_projection",
    "guidance_embeds",
    "use_pos_embed",
)
_EXTRA_CHANNELS = ("extra_condition_channels", "extra_conditioning_channels")
_WIDTHS = ("cross_attention_dim", "joint_attention_dim")  # of the text that a denoiser and its ControlNet attend to


def load_controlnets(catalogue: AdapterCatalogue, pipeline: Any, settings: Settings) -> dict[str, Any]:
    """The ControlNets by name, in the pipeline's number format, on the CPU.

    Raises:
        ModelError: one cannot be found or read.
        SettingsError: the model takes none, or not this one.
    """
    return {name: _controlnet(name, place, pipeline, settings) for name, place in catalogue.controlnets.items()}


def describe_controlnets(catalogue: AdapterCatalogue, controlnets: Mapping[str, Any]) -> dict[str, ControlKind]:
    """What each of these takes beside the picture that it follows."""
    return {name: _describe(name, catalogue.controlnets[name], net) for name, net in controlnets.items()}


def _describe(name: str, place: str, net: Any) -> ControlKind:
    """What its class and its config tell; of Stable Diffusion's for inpainting, only the name does."""
    entries, told = net.config, _is_told_to_inpaint(name, place)
    extra = _count_extra_channels(entries)
    alike = ", ".join(f"{entry}={entries[entry]}" for entry in _UNLIKE if entry in entries)
    kind = ControlKind(f"{type(net).__name__} {alike}", needs_mask=extra > 0)
    if isinstance(net, ControlNetUnionModel):
        modes = entries["num_control_type"]
        repaint = REPAINT if modes > REPAINT else None
        return replace(kind, modes=modes, names=name_modes(SDXL_MODES, modes), repaint=repaint)
    if entries.get("num_mode"):  # whose modes tell apart what they follow, so that others can stand beside it
        return replace(kind, modes=entries["num_mode"], names=name_modes(FLUX_MODES, entries["num_mode"]))
    if isinstance(net, QwenImageControlNetModel):
        return replace(kind, alone=True)
    if isinstance(net, ControlNetModel) and told:
        log.info("ControlNet %s: for inpainting, as its name says", name)
        return replace(kind, needs_mask=True)
    return kind


def _is_told_to_inpaint(name: str, place: str) -> bool:
    """Whether the owner, or who has published it, calls it so."""
    return "inpaint" in f"{name} {place.rstrip('/').rpartition('/')[2]}".lower()


def _count_extra_channels(entries: Mapping[str, Any]) -> int:
    """Channels beside those of the picture: where a mask goes."""
    channels = next((entries[entry] for entry in _EXTRA_CHANNELS if entries.get(entry)), 0)
    if isinstance(channels, bool) or not isinstance(channels, int):
        raise ModelError(f"its config has {repr(channels)[:40]} extra channels; it should be an integer")
    return channels


def _controlnet(name: str, place: str, pipeline: Any, settings: Settings) -> Any:
    setting = f"CONTROLNETS: {name}"
    controlled = task_classes(type(pipeline)).get(TEXT + CONTROLLED)
    if controlled is None or follows(type(pipeline)):
        raise SettingsError(f"{setting}: {type(pipeline).__name__} takes no ControlNet")
    try:
        source = find_component(fetch_place(place, settings))
        log.info("ControlNet %s: %s", name, source.reason)
        file = _read_file(source, settings) if source.is_file else None
        folder = local_component(source, settings, "CONTROLNETS") if file is None else file.path.parent
        entries = file.entries if file else read_json(folder / CONFIG)
        kind = _find_class(entries)
        if kind is None or not any(_is_for(kind, one) for one in (controlled, union_class(controlled)) if one):
            raise SettingsError(f"{setting}: {place} is {entries.get('_class_name')}, no ControlNet for this model")
        _check_width(setting, entries, pipeline)
        extra_channels = _count_extra_channels(entries)
        with explain_unreadable(f"{place} cannot be loaded", folder):
            if file:
                net = file.load(find_denoiser(pipeline), pipeline.dtype)
            else:
                inpaints = kind is SD3ControlNetModel and _is_told_to_inpaint(name, place)
                net = _read_folder(name, folder, kind, inpaints and not extra_channels, pipeline, settings)
        check_weights(net, f"{place} is no whole ControlNet")
        return net
    except ModelError as error:
        raise ModelError(f"{setting}: {error}") from error


def _read_folder(name: str, folder: Path, kind: Any, add_mask: bool, pipeline: Any, settings: Settings) -> Any:
    weights = choose_weights((one.name for one in folder.iterdir()), settings.model_variant)
    log_variant(f"ControlNet {name}", weights, settings.model_variant)
    options: dict[str, Any] = {}
    if add_mask:
        options["extra_conditioning_channels"] = 1  # which the published config does not tell of
    with show_component(folder, weights) as view, limit_weights(str(folder), sorted(view.glob("*.safetensors"))):
        return kind.from_pretrained(view, dtype=pipeline.dtype, use_safetensors=True, **options)


def _read_file(source: ModelSource, settings: Settings) -> ControlNetFile:
    path = local_file(source, hub_options(source, settings), "CONTROLNETS")
    return read_controlnet_file(path, path.name if source.kind == "file" else source.location)


def _find_class(entries: Mapping[str, Any]) -> Any:
    """The class that the config names, or that its entries are for where it names a more general one."""
    name = str(entries.get("_class_name"))
    if "num_control_type" in entries and name.startswith("ControlNet"):
        return ControlNetUnionModel
    if name == "FluxControlNetModel" and _count_extra_channels(entries):
        return FluxInpaintingControlNetModel
    found = getattr(diffusers, name, None)
    return found if isinstance(found, type) else None


def _is_for(kind: type, controlled: type) -> bool:
    """Whether the pipeline's class says that it takes such a ControlNet."""
    taken = str(inspect.signature(controlled).parameters["controlnet"].annotation)
    return any(re.search(rf"\b{one.__name__}\b", taken) for one in kind.__mro__)


def _check_width(setting: str, entries: Mapping[str, Any], pipeline: Any) -> None:
    denoiser = find_denoiser(pipeline)
    for width in _WIDTHS:
        came, needed = entries.get(width), denoiser.config.get(width)
        if came is not None and needed is not None and came != needed:
            raise SettingsError(f"{setting}: it attends to text of width {came}, this model's is {needed}")
