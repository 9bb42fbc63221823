"""A model in diffusers layout, in a folder or on the hub -> its pipeline, on the CPU."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import ModelMixin, SchedulerMixin
from diffusers.guiders import BaseGuidance
from transformers import (
    FeatureExtractionMixin,
    ImageProcessingMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from worker.engine.load.completeness import check_complete, check_tokens
from worker.engine.load.dtype import choose_dtype
from worker.engine.load.pipeline_class import choose_reader, find_class
from worker.engine.load.processors import read_processors
from worker.engine.load.quantize import quantization_options
from worker.engine.load.transformer import load_transformer
from worker.engine.pipelines import needs_a_prior
from worker.engine.unreadable import explain_unreadable
from worker.errors import ModelError
from worker.models.checks import DENOISER, SAFETY_CHECKER, check_component
from worker.models.hub import download, hub_options, local_model
from worker.models.index import INDEX, ModelIndex, read_model_index
from worker.models.json_file import read_json
from worker.models.locate import ModelSource
from worker.models.variants import log_variant
from worker.models.view import show_model
from worker.settings import Settings

_KINDS = (
    ModelMixin,
    SchedulerMixin,
    BaseGuidance,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    FeatureExtractionMixin,
    ImageProcessingMixin,
    ProcessorMixin,
)
# Of a processor that transformers makes with torchvision, the part that is used: FLUX.2 reads text alone with it.
_READ_AS = {("transformers", "PixtralProcessor"): ("transformers", "PreTrainedTokenizerFast")}
_NEEDED = ("scheduler", "text_encoder", "tokenizer", "transformer", "unet", "vae")  # where the class takes it


def load_pretrained(source: ModelSource, settings: Settings, device: torch.device) -> Any:
    """The pipeline that a model's own model_index.json says.

    Raises:
        ModelError: it cannot be read, is not whole, or is none that draws by itself.
    """
    path = read_index(source, settings, "MODEL_NAME")
    index = read_model_index(path)
    if index.flags.get("requires_aesthetics_score"):
        raise ModelError(f"{source.name} is SDXL's refiner: name it in REFINER_NAME, beside a base model")
    if needs_a_prior(index.pipeline):
        raise ModelError(f"{source.name} needs a second model, its prior, which this worker does not load")
    options: dict[str, Any] = {"dtype": choose_dtype(settings, device, "transformer" in index.parts)}
    options |= quantization_options(settings, read_json(path), options["dtype"])
    if settings.transformer_name is not None:
        options[DENOISER] = load_transformer(source, index, settings, options["dtype"])
    if settings.safety_checker == "off" and SAFETY_CHECKER in index.parts:
        options |= {SAFETY_CHECKER: None, "requires_safety_checker": False}
    elif source.kind == "folder" and SAFETY_CHECKER in index.parts:
        _check_safety_checker(Path(source.location) / SAFETY_CHECKER)
    kind = find_class(index.pipeline, source.name)
    return read_pipeline(choose_reader(kind), kind, source, path, settings, options, "model")


def read_index(source: ModelSource, settings: Settings, setting: str) -> Path:
    """The local copy of a model's model_index.json."""
    if source.kind == "folder":
        return Path(source.location) / INDEX
    return download(source.location, INDEX, hub_options(source, settings), setting)


def read_pipeline(
    reader: Any,
    kind: type | None,
    source: ModelSource,
    path: Path,
    settings: Settings,
    options: Mapping[str, Any],
    what: str,
) -> Any:
    """The pipeline of a folder or a repository, with all its weights.

    Args:
        reader: the diffusers class that reads it.
        kind: the pipeline's class; None if diffusers has none of that name, and will say so.
        path: the local copy of its model_index.json.
        options: of from_pretrained, parts of the pipeline among them.
        what: as messages name it.

    Raises:
        ModelError: it cannot be read, or is not whole.
    """
    index = _choose_parts(read_model_index(path), kind, path, options)
    folder, weights = local_model(source, path, index.parts, settings)
    for component, found in weights.items():
        log_variant(component, found, settings.model_variant)
    given = {**dict.fromkeys(index.absent), **options, "use_safetensors": True, "local_files_only": True}
    location = source.location
    with explain_unreadable(f"{location} cannot be loaded as a {what}", folder):
        with show_model(folder, index, weights) as view:
            pipeline = reader.from_pretrained(str(view), **given, **read_processors(view, index))
        check_tokens(pipeline.components, location)
    check_complete(pipeline.components, f"{location} is no complete {what}")
    return pipeline


def _choose_parts(index: ModelIndex, kind: type | None, path: Path, options: Mapping[str, Any]) -> ModelIndex:
    """What of an index the pipeline's class takes, and is not among the options.

    Raises:
        ModelError: a part is of no class that is read here, or one that is needed is absent.
    """
    if kind is None:
        return index
    taken = inspect.signature(kind).parameters
    wanted = {name: entry for name, entry in index.parts.items() if name in taken and name not in options}
    parts = {name: _READ_AS.get(entry, entry) for name, entry in wanted.items()}
    for name, (library, found) in parts.items():
        _check_class(path, name, library, found)
    optional = getattr(kind, "_optional_components", [])
    for name in _NEEDED:
        if name in taken and name not in (*parts, *options, *optional):
            raise ModelError(f"{path}: {name}: got null; {kind.__name__} draws with one")
    return replace(
        index,
        parts=parts,
        absent=frozenset(name for name in index.absent if name in taken and name not in options),
        flags={name: flag for name, flag in index.flags.items() if name in taken and name not in options},
    )


def _check_class(path: Path, name: str, library: str, kind: str) -> None:
    """Refuse what is no class of a library that is read here; diffusers knows new names for some that are gone."""
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    module = module or getattr(diffusers.pipelines, library, None)
    found = getattr(module, kind, None)
    if module is None or (found is not None and not (isinstance(found, type) and issubclass(found, _KINDS))):
        allowed = "a model, scheduler, tokenizer or processor of diffusers or transformers"
        raise ModelError(f"{path}: {name}: got {library}.{kind}; should be {allowed}")


def _check_safety_checker(folder: Path) -> None:
    try:
        check_component(folder)
    except ModelError as error:
        raise ModelError(f"{error}; SAFETY_CHECKER=off loads without it") from error
