"""Whether something that the owner has named brings weights that are quantised already, as its configs say."""

from collections.abc import Iterator
from pathlib import Path

from worker.errors import WorkerError
from worker.files import UnreadableError, exists, is_folder, list_folder, read_file
from worker.models.locate import seek
from worker.settings import Settings, split_list

MAX_CONFIG_BYTES = 1_000_000


def may_be_quantised(settings: Settings) -> bool:
    """Whether a part of what is named is quantised, or is not here yet, so that nobody knows."""
    try:
        return any(place is None or _is_marked(place) for place in _seek_all(settings))
    except (WorkerError, UnreadableError):  # told where it is loaded
        return True


def _seek_all(settings: Settings) -> Iterator[Path | None]:
    if settings.model_name:
        yield seek(settings.model_name, settings.model_revision)
    others = [entry.partition("=")[2].strip() for entry in split_list(settings.controlnets)]
    yield from (seek(name) for name in (settings.refiner_name, settings.vae_name, *others) if name)


def _is_marked(place: Path) -> bool:
    if not is_folder(place):
        return False  # a single file has no config
    configs = [place / "config.json", *(place / name / "config.json" for name in list_folder(place))]
    return any(exists(one) and b'"quantization_config"' in read_file(one, MAX_CONFIG_BYTES) for one in configs)
