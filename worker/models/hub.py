"""One file at a time from the model hub; what stands in the way is said in one sentence."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN_PATH
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from worker.errors import MissingFileError, ModelError, SettingsError
from worker.files import check_readable, exists, list_folder
from worker.models.addresses import HubPlace, read_civitai, read_hub
from worker.models.checks import check_component, check_file, check_model, describe_no_weights
from worker.models.civitai import fetch_place
from worker.models.download_log import fetch_file, fetch_snapshot
from worker.models.hub_transfers import bound_transfers
from worker.models.index import INDEX
from worker.models.locate import ModelSource, download_folder, exists_here, find_component, find_model
from worker.models.paths import name_unreadable
from worker.models.variants import WeightFiles, choose_variants, choose_weights, is_data, is_weights
from worker.settings import Settings
from worker.text import read_first_line

CONFIG = "config.json"
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE)
_LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def hub_options(source: ModelSource, settings: Settings) -> dict[str, Any]:
    """What the hub is asked with; nothing for local files, so that the token goes nowhere else."""
    if source.kind in ("file", "folder"):
        return {}
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    if token is None:
        with name_unreadable():
            _check_token_file(Path(HF_TOKEN_PATH))
    return {"revision": source.revision, "token": token, "cache_dir": download_folder()}


def _check_token_file(path: Path) -> None:
    """A login on this machine would have left its token there; the hub's library opens it if the settings have none."""
    if exists(path):
        check_readable(path)


def split_location(location: str) -> tuple[str, str]:
    """org/name, or org/name/path -> the repository and the path in it."""
    owner, repository, *path = location.split("/", 2)
    return f"{owner}/{repository}", "".join(path)


def download(repository: str, file: str, hub: Mapping[str, Any], setting: str = "MODEL_NAME") -> Path:
    """The local copy of a file on the hub, fetched if need be.

    Args:
        hub: as from `hub_options`.
        setting: where the owner named the repository.

    Raises:
        MissingFileError: the repository has no such file.
        ModelError: the repository cannot be read.
    """
    with _one_sentence(repository, file, hub, setting):
        return Path(fetch_file(repository, file, **hub))


@contextmanager
def _one_sentence(repository: str, file: str, hub: Mapping[str, Any], setting: str) -> Iterator[None]:
    """Say what the hub's errors mean for whoever named the repository."""
    try:
        yield
    except GatedRepoError as error:
        reason = "is gated: accept its terms on its page, and set HF_TOKEN to a token of that account"
        raise ModelError(f"{repository} {reason}") from error
    except RepositoryNotFoundError as error:
        reason = f"is not on the hub, or is private: check {setting}, and set HF_TOKEN if it is private"
        raise ModelError(f"{repository} {reason}") from error
    except LocalEntryNotFoundError as error:
        offline = " (HF_HUB_OFFLINE is set, as in an image with a model baked in)" if HF_HUB_OFFLINE else ""
        raise ModelError(f"{repository} is not on this machine, and the hub cannot be reached{offline}") from error
    except (RevisionNotFoundError, EntryNotFoundError) as error:
        raise MissingFileError(f"{repository} has no {file} at revision {hub['revision'] or 'main'}") from error
    except (OSError, HfHubHTTPError, HTTPError, ValueError) as error:
        raise ModelError(f"{repository} cannot be fetched from the hub: {_find_reason(error, hub)}") from error


def _find_reason(error: Exception, hub: Mapping[str, Any]) -> str:
    """What keeps a file from being fetched; of a disk, with the folder, which the system does not always name."""
    if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
        return f"{hub['cache_dir'] or HF_HUB_CACHE} cannot be written: {error.strerror}"
    return first_line(error)


def local_file(source: ModelSource, hub: Mapping[str, Any], setting: str = "MODEL_NAME") -> Path:
    """The local copy, checked, of one file, which is here or on the hub."""
    path = Path(source.location) if source.kind == "file" else download(*split_location(source.location), hub, setting)
    check_file(path)
    return path


def local_component(source: ModelSource, settings: Settings, setting: str, below: str = "") -> Path:
    """The local folder, checked, of a part that stands beside the model: its config, and the weights to take.

    Args:
        below: where in the source it is.

    Raises:
        MissingFileError: there is no config.
        ModelError: it cannot be read, or is not whole.
    """
    if source.kind == "folder":
        return Path(source.location)
    hub, (repository, path) = hub_options(source, settings), split_location(source.location)
    prefix = "".join(f"{part}/" for part in (path, below) if part)
    config = download(repository, f"{prefix}{CONFIG}", hub, setting)
    names = _names_in(prefix, repository, hub, config.parent)
    weights = choose_weights(names, settings.model_variant)
    if not weights.names:
        raise ModelError(f"{repository}/{prefix} {describe_no_weights(names)}".replace("/ ", " "))
    for name in weights.names:
        download(repository, f"{prefix}{name}", hub, setting)
    return check_component(config.parent)


def _names_in(prefix: str, repository: str, hub: Mapping[str, Any], folder: Path) -> list[str]:
    """The files in a folder of a repository; what is here of it where the hub cannot be asked."""
    files = _list_files(repository, hub)
    if files is None:
        return list_folder(folder)
    inside = [file.removeprefix(prefix) for file in files if file.startswith(prefix)]
    return [name for name in inside if "/" not in name]


def _list_files(repository: str, hub: Mapping[str, Any]) -> list[str] | None:
    """None where the hub cannot be asked."""
    bound_transfers()
    try:
        return list(HfApi(token=hub["token"]).list_repo_files(repository, revision=hub["revision"]))
    except Exception:  # the hub's errors and those of its HTTP library have no class in common
        return None


def local_model(
    source: ModelSource, index: Path, components: Iterable[str], settings: Settings
) -> tuple[Path, dict[str, WeightFiles]]:
    """The folder of a model in diffusers layout, whole as far as it is wanted, and which files its weights are.

    From the hub, only what is wanted is fetched, and it is checked as a folder is.

    Args:
        index: the local copy of its model_index.json.
        components: the parts that are wanted.

    Raises:
        ModelError: it cannot be fetched, or is not whole.
    """
    folder, hub, wanted = index.parent, hub_options(source, settings), tuple(components)
    listed = None if source.kind == "folder" else _list_files(source.location, hub)
    files = listed or [str(file.relative_to(folder)) for file in folder.glob("*/*")]
    weights = choose_variants(files, wanted, settings.model_variant)
    if listed is not None:
        _check_listed_weights(source.location, listed, weights)
        taken = [f"{component}/{name}" for component, found in weights.items() for name in found.names]
        others = [file for file in listed if file.partition("/")[0] in weights and is_data(file.partition("/")[2])]
        with _one_sentence(source.location, "such files", hub, "MODEL_NAME"):
            folder = Path(fetch_snapshot(source.location, **hub, allow_patterns=[INDEX, *taken, *others]))
    if source.kind != "folder":
        check_model(folder, wanted)
    if settings.model_variant and not any(found.variant == settings.model_variant for found in weights.values()):
        raise ModelError(f"{source.location} has no weights of MODEL_VARIANT {settings.model_variant!r}")
    return folder, weights


def _check_listed_weights(repository: str, listed: Iterable[str], weights: Mapping[str, WeightFiles]) -> None:
    """Refuse what is there in other formats only, before anything of it is fetched."""
    for component, found in weights.items():
        names = [file.partition("/")[2] for file in listed if file.startswith(f"{component}/")]
        if CONFIG in names and not found.names and any(is_weights(name) for name in names):
            raise ModelError(f"{repository}/{component} {describe_no_weights(names)}")


def first_line(error: Exception) -> str:
    """What an exception says first; not where the hub has redirected to, which is signed and as good as a key."""
    return read_first_line(error)


def find_file(setting: str, place: str, settings: Settings) -> Path:
    """The local copy, checked, of a file that a setting names.

    Raises:
        SettingsError: it names something else.
        ModelError: it cannot be found or read.
    """
    source = find_model(fetch_place(place, settings))
    if not source.is_file:
        raise SettingsError(f"{setting}: got {place!r}; should be a file, or org/name/file.safetensors")
    return local_file(source, hub_options(source, settings), setting)


def find_folder(setting: str, place: str, settings: Settings) -> Path:
    """The local copy of a component's folder; on the hub it may lie anywhere in a repository."""
    source = find_component(fetch_place(place, settings))
    if source.is_file:
        raise SettingsError(f"{setting}: got {place!r}; should be a folder, or org/name/folder")
    return local_component(source, settings, setting)


def find_beside(place: str, name: str) -> str:
    """The place of a folder of this name, beside the file that is at this place."""
    if exists_here(place) or place.startswith(("/", ".", "~")) or read_civitai(place):
        return f"{place.rpartition('/')[0]}/{name}"
    file = read_hub(place)
    beside = "/".join((*file.location.split("/")[:-1], name))
    if file.revision is None:
        return beside
    owner, repository, path = beside.split("/", 2)
    return f"https://huggingface.co/{owner}/{repository}/tree/{quote(file.revision, safe='')}/{path}"


def make_lora_fetcher(settings: Settings) -> Callable[[str], Path]:
    """What turns a LoRA's place into its file, checked; from the hub at need."""

    def fetch(place: str) -> Path:
        if Path(place).is_absolute():  # found at start; it may be gone by now
            check_file(Path(place))
            return Path(place)
        if exists_here(place):
            return find_file("LORA_REPOS", place, settings)
        named = read_hub(place)
        if named.kind == "repository":
            file = _from_repository(named, settings)
            check_file(file)
            path = file.name
        else:
            file = find_file("LORA_REPOS", place, settings)
            path = named.location.removeprefix(f"{named.repository}/")
        if file.name == _PEFT_WEIGHTS:
            _fetch_config_beside(named, path, settings)
        return file

    return fetch


def _fetch_config_beside(place: HubPlace, path: str, settings: Settings) -> None:
    """Fetch the config in which peft keeps what its weights are to be multiplied with, if there is one.

    Args:
        path: of the weights, in their repository.
    """
    config = path.removesuffix(_PEFT_WEIGHTS) + _PEFT_CONFIG
    with suppress(MissingFileError):
        download(place.repository, config, hub_options(_source_of(place), settings), "LORA_REPOS")


def _source_of(place: HubPlace) -> ModelSource:
    return ModelSource("hub", place.repository, place.repository, "it is a hub id", place.revision)


def _from_repository(place: HubPlace, settings: Settings) -> Path:
    """The LoRA of a repository that names no file: under diffusers' name for it, or the only one there is."""
    repository, hub = place.repository, hub_options(_source_of(place), settings)
    try:
        return download(repository, _LORA_WEIGHTS, hub, "LORA_REPOS")
    except MissingFileError:
        files = _list_files(repository, hub)
    if files is None:
        raise ModelError(f"{repository} cannot be listed by the hub")
    weights = [file for file in files if file.endswith(".safetensors")]
    if len(weights) != 1:
        raise ModelError(f"{repository} holds {len(weights)} .safetensors files; name one in LORA_REPOS")
    return download(repository, weights[0], hub, "LORA_REPOS")
