"""A model in diffusers layout, in a folder or on the hub -> its pipeline, on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image

from worker.engine.load.completeness import check_complete
from worker.engine.load.dtype import choose_dtype
from worker.engine.load.quantize import quantization_options
from worker.engine.pipelines import needs_a_prior
from worker.errors import ModelError
from worker.models.checks import SAFETY_CHECKER, check_component, read_json
from worker.models.hub import INDEX, download, find_variants, first_line, hub_options
from worker.models.locate import ModelSource
from worker.models.variants import WeightFiles, log_variant, plain_names
from worker.settings import Settings

_UNREADABLE = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError)  # from files not as published


def load_pretrained(source: ModelSource, settings: Settings, device: torch.device) -> Any:
    """The pipeline that a model's own model_index.json says.

    Raises:
        ModelError: it cannot be read, is not whole, or is none that draws by itself.
    """
    index = read_index(source, settings, "MODEL_NAME")
    components = read_json(index)
    if components.get("requires_aesthetics_score"):
        raise ModelError(f"{source.name} is SDXL's refiner: name it in REFINER_NAME, beside a base model")
    if needs_a_prior(str(components.get("_class_name"))):
        raise ModelError(f"{source.name} needs a second model, its prior, which this worker does not load")
    options: dict[str, Any] = {"dtype": choose_dtype(settings, device, "transformer" in components)}
    options |= quantization_options(settings, components, options["dtype"])
    options |= {name: None for name, entry in components.items() if entry == [None, None]}
    if settings.safety_checker == "off" and SAFETY_CHECKER in components:
        options |= {SAFETY_CHECKER: None, "requires_safety_checker": False}
    elif source.kind == "folder" and any(components.get(SAFETY_CHECKER) or ()):
        _check_safety_checker(Path(source.location) / SAFETY_CHECKER)
    return read_pipeline(AutoPipelineForText2Image, source, index, settings, options, "model")


def read_index(source: ModelSource, settings: Settings, setting: str) -> Path:
    """The local copy of a model's model_index.json."""
    if source.kind == "folder":
        return Path(source.location) / INDEX
    return download(source.location, INDEX, hub_options(source, settings), setting)


def read_pipeline(
    kind: Any, source: ModelSource, index: Path, settings: Settings, options: Mapping[str, Any], what: str
) -> Any:
    """The pipeline of a folder or a repository, with all its weights.

    Args:
        kind: the diffusers class that reads it.
        index: the local copy of its model_index.json.
        options: of from_pretrained, parts of the pipeline among them.
        what: as messages name it.

    Raises:
        ModelError: it cannot be read, or is not whole.
    """
    hub, location = hub_options(source, settings), source.location
    wanted = [name for name, entry in read_json(index).items() if isinstance(entry, list) and name not in options]
    variants: dict[str, WeightFiles] = {}
    if settings.model_variant is None:
        location, variants = find_variants(source, index, wanted, hub)
        for component, weights in variants.items():
            log_variant(component, weights, None)
    options = {**options, "use_safetensors": True, "variant": settings.model_variant}
    try:
        if variants:
            with plain_names(Path(location), variants) as folder:
                pipeline = kind.from_pretrained(str(folder), **options)
        else:
            pipeline = kind.from_pretrained(location, **options, **hub)
    except _UNREADABLE as error:
        raise ModelError(f"{location} cannot be loaded as a {what}: {_explain(error)}") from error
    check_complete(pipeline.components, f"{location} is no complete {what}")
    return pipeline


def _check_safety_checker(folder: Path) -> None:
    try:
        check_component(folder)
    except ModelError as error:
        raise ModelError(f"{error}; SAFETY_CHECKER=off loads without it") from error


def _explain(error: Exception) -> str:
    # Both libraries advise then how to go on with weights drawn at random.
    return "weights do not fit its config" if "ignore_mismatched_sizes" in str(error) else first_line(error)
