"""TRANSFORMER_NAME -> the denoiser of a file, built as the base model's config says, in place of the base's own."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

from worker.engine.load.checkpoint import name_other
from worker.engine.load.completeness import check_complete
from worker.engine.load.denoisers import outline, tell_denoiser
from worker.engine.load.gguf_file import GgufFile, is_gguf, open_gguf, unpack_others
from worker.engine.load.weight_file import WeightFile, open_weights
from worker.engine.unreadable import explain_unreadable
from worker.engine.weights import check_weights, limit_layers
from worker.errors import ModelError, SettingsError
from worker.models.checks import DENOISER
from worker.models.civitai import fetch_place
from worker.models.configs import check_config
from worker.models.hub import CONFIG, download, hub_options, local_file
from worker.models.index import ModelIndex
from worker.models.json_file import read_json
from worker.models.locate import ModelSource, find_transformer
from worker.settings import Settings

log = logging.getLogger("worker")

File = WeightFile | GgufFile
Convert = Callable[[dict[str, Any]], dict[str, Any]]

_SETTING = "TRANSFORMER_NAME"


def load_transformer(base: ModelSource, index: ModelIndex, settings: Settings, dtype: torch.dtype) -> Any:
    """The denoiser of the file that TRANSFORMER_NAME names, in this number format, on the CPU.

    Args:
        base: the model whose other components it draws with.

    Raises:
        ModelError: it cannot be found or read, or is none of the base's kind and size.
        SettingsError: the base has no denoiser that loads from a file.
    """
    library, kind = index.parts.get(DENOISER, ("", ""))
    if library != "diffusers" or kind not in SINGLE_FILE_LOADABLE_CLASSES:
        has = f"{kind}, which does not load from one file" if kind else f"no {DENOISER}"
        raise SettingsError(f"{_SETTING}: {base.name} is {index.pipeline}; it has {has}")
    config = _find_config(base, settings)
    try:
        source = find_transformer(fetch_place(str(settings.transformer_name), settings))
        if not source.is_file:
            raise SettingsError(
                f"{_SETTING}: {source.name} is a whole folder or repository; name a file, or org/name/file"
            )
        log.info("transformer %s: %s says so; %s", source.name, _SETTING, source.reason)
        path = local_file(source, hub_options(source, settings), _SETTING)
        transformer = _read(path, kind, config, dtype)
        check_complete({DENOISER: transformer}, f"{path} is no complete {kind}")
        check_weights(transformer, str(path))
    except ModelError as error:
        raise ModelError(f"{_SETTING}: {error}") from error
    return transformer


def _find_config(base: ModelSource, settings: Settings) -> Path:
    """The config of the base's own denoiser, whose weights are not asked for."""
    if base.kind == "folder":
        config = Path(base.location) / DENOISER / CONFIG
    else:
        config = download(base.location, f"{DENOISER}/{CONFIG}", hub_options(base, settings))
    check_config(config, read_json(config))
    return config


def _read(path: Path, kind: str, config: Path, dtype: torch.dtype) -> Any:
    file = open_gguf(path) if is_gguf(path) else open_weights(path)
    log.info("%s: %d tensors in %s", path.name, len(file.shapes), file.formats)
    _check_kind(file, kind)
    reader = getattr(diffusers, kind)
    with explain_unreadable(f"{path} cannot be loaded as {kind}"):
        said = reader.load_config(str(config.parent), local_files_only=True)
        with limit_layers(str(path), len(file.shapes)), init_empty_weights():
            wanted = {name: tuple(weight.shape) for name, weight in reader.from_config(said).state_dict().items()}
        convert = _choose_conversion(file, kind, said, wanted)
        _check_fit(file, kind, wanted, convert(outline(file.shapes)))
        weights = convert(file.read(dtype))
        found = {name: weights[name] for name in wanted}
        options = {"config": str(config.parent), "local_files_only": True, **file.options(dtype)}
        transformer = reader.from_single_file(found, dtype=dtype, **options)
        if is_gguf(path):
            unpack_others(transformer, dtype)
        return transformer


def _check_kind(file: File, kind: str) -> None:
    """Refuse a file that diffusers knows to be for another class."""
    found = tell_denoiser(file.shapes)
    if found is not None and found.kind != kind:
        raise ModelError(f"{file.path} is {found.title}; MODEL_NAME has a {kind}")


def _choose_conversion(
    file: File, kind: str, config: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]
) -> Convert:
    """What turns the file's names into diffusers': nothing, or diffusers' own conversion, if more is there after it."""

    def convert(weights: dict[str, Any]) -> dict[str, Any]:
        converted: dict[str, Any] = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"](
            checkpoint=weights, config=config
        )
        return converted

    there = wanted.keys() & file.shapes.keys()
    if len(there) == len(wanted):
        return dict
    left = outline(file.shapes)
    try:
        converted = convert(left)
    except (IndexError, KeyError) as error:
        if 2 * len(there) > len(wanted):
            return dict
        found = name_other(file.shapes)
        missing = f": {str(error)[:100]} is missing" if isinstance(error, KeyError) else ""
        lack = f"is {found}" if found else f"is no {kind}, or not all of it{missing}"
        raise ModelError(f"{file.path} {lack}") from error
    if len(wanted.keys() & converted.keys()) <= len(there):
        return dict
    if left and left is not converted:
        log.warning("%s: %d tensors have no use here, e.g. %s", file.path.name, len(left), next(iter(left)))
    return convert


def _check_fit(
    file: File, kind: str, wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, torch.Tensor]
) -> None:
    """Name the first weight that is missing, of another shape or of no use."""
    missing = [name for name in wanted if name not in weights]
    more = [name for name in weights if name not in wanted]
    if missing and len(missing) == len(wanted):
        found = name_other(file.shapes) or "of an architecture this worker does not know"
        raise ModelError(f"{file.path} is {found}; MODEL_NAME has a {kind}, with {missing[0]} and others")
    for name, shape in wanted.items():
        if name in weights and tuple(weights[name].shape) != shape:
            came, needed = (" x ".join(map(str, one)) or "a number" for one in (weights[name].shape, shape))
            raise ModelError(f"{file.path}: {name} is {came}; MODEL_NAME's {kind} has {needed}")
    if missing:
        raise ModelError(f"{file.path}: missing {len(missing)} weights of MODEL_NAME's {kind}, e.g. {missing[0]}")
    if more:
        count = sum(math.prod(weights[name].shape) for name in more)
        raise ModelError(
            f"{file.path} has {len(more)} weights ({count} numbers) that MODEL_NAME's {kind} has not, e.g. {more[0]}"
        )
