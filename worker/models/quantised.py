"""Whether something that the owner has named brings weights that are quantised already, as its configs say."""

from collections.abc import Iterator
from pathlib import Path

from worker.errors import WorkerError
from worker.files import UnreadableError, exists, list_folder, read_file
from worker.models.locate import ModelSource, find_component, find_model, find_vae
from worker.settings import Settings, split_list

MAX_CONFIG_BYTES = 1_000_000


def may_be_quantised(settings: Settings) -> bool:
    """Whether a part of what is named is quantised, or is not here yet, so that nobody knows."""
    try:
        return any(map(_is_marked, _find_sources(settings)))
    except (WorkerError, UnreadableError):  # told where it is loaded
        return True


def _find_sources(settings: Settings) -> Iterator[ModelSource]:
    if settings.model_name:
        yield find_model(settings.model_name, settings.model_revision)
    if settings.refiner_name:
        yield find_model(settings.refiner_name)
    if settings.vae_name:
        yield find_vae(settings.vae_name)
    for entry in split_list(settings.controlnets):
        yield find_component(entry.partition("=")[2].strip())


def _is_marked(source: ModelSource) -> bool:
    if source.kind != "folder":
        return source.kind != "file"
    folder = Path(source.location)
    configs = [folder / "config.json", *(folder / name / "config.json" for name in list_folder(folder))]
    return any(exists(one) and b'"quantization_config"' in read_file(one, MAX_CONFIG_BYTES) for one in configs)
