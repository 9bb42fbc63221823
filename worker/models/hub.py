"""One file at a time from the model hub; what stands in the way is said in one sentence."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from worker.errors import MissingFileError, ModelError, SettingsError
from worker.models.checks import check_file
from worker.models.download_log import fetch_file
from worker.models.locate import ModelSource, download_folder, find_component, find_model
from worker.settings import Settings


def hub_options(source: ModelSource, settings: Settings, revision: str | None) -> dict[str, Any]:
    """What the hub is asked with; nothing for local files, so that the token goes nowhere else."""
    if source.kind in ("file", "folder"):
        return {}
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    return {"revision": revision, "token": token, "cache_dir": download_folder()}


def split_location(location: str) -> tuple[str, str]:
    """org/name/file -> the repository and the file."""
    owner, repository, file = location.split("/", 2)
    return f"{owner}/{repository}", file


def download(repository: str, file: str, hub: Mapping[str, Any], setting: str = "MODEL_NAME") -> Path:
    """The local copy of a file on the hub, fetched if need be.

    Args:
        hub: as from `hub_options`.
        setting: where the owner named the repository.

    Raises:
        MissingFileError: the repository has no such file.
        ModelError: the repository cannot be read.
    """
    try:
        return Path(fetch_file(repository, file, **hub))
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
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(f"{repository} cannot be fetched from the hub: {first_line(error)}") from error


def local_file(source: ModelSource, hub: Mapping[str, Any], setting: str = "MODEL_NAME") -> Path:
    """The local copy, checked, of one file, which is here or on the hub."""
    path = Path(source.location) if source.kind == "file" else download(*split_location(source.location), hub, setting)
    check_file(path)
    return path


def first_line(error: Exception) -> str:
    """What an exception says first."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


CONFIG = "config.json"


_LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def find_file(setting: str, place: str, settings: Settings) -> Path:
    source = find_model(place)
    if source.kind not in ("file", "hub file"):
        raise SettingsError(f"{setting}: got {place!r}; should be a file, or org/name/file.safetensors")
    return local_file(source, hub_options(source, settings, None), setting)


def find_folder(setting: str, place: str, settings: Settings) -> Path:
    """The local copy of a component's folder; on the hub it may lie anywhere in a repository."""
    if Path(place).expanduser().exists() or place.startswith(("/", ".", "~")) or place.count("/") < 2:
        source = find_component(place)
        if source.kind == "folder":
            return Path(source.location)
        raise SettingsError(f"{setting}: got {place!r}; should be a folder, or org/name/folder")
    repository, folder = split_location(place)
    hub = hub_options(hub_source(repository), settings, None)
    config = download(repository, f"{folder}/{CONFIG}", hub, setting)
    check_file(download(repository, f"{folder}/model.safetensors", hub, setting))
    return config.parent


def hub_source(repository: str) -> ModelSource:
    return ModelSource("hub", repository, repository, "it is a hub id")


def make_lora_fetcher(settings: Settings) -> Callable[[str], Path]:
    """What turns a LoRA's place into its file, checked; from the hub at need."""

    def fetch(place: str) -> Path:
        if Path(place).exists():
            return find_file("LORA_REPOS", place, settings)
        if place.count("/") == 1:
            file = _from_repository(place, settings)
            check_file(file)
            place = f"{place}/{file.name}"
        else:
            file = find_file("LORA_REPOS", place, settings)
        if file.name == _PEFT_WEIGHTS:
            _fetch_config_beside(place, settings)
        return file

    return fetch


def _fetch_config_beside(place: str, settings: Settings) -> None:
    """Fetch the config in which peft keeps what its weights are to be multiplied with, if there is one."""
    repository, file = split_location(place)
    hub = hub_options(hub_source(repository), settings, None)
    with contextlib.suppress(MissingFileError):
        download(repository, file.removesuffix(_PEFT_WEIGHTS) + _PEFT_CONFIG, hub, "LORA_REPOS")


def _from_repository(repository: str, settings: Settings) -> Path:
    """The LoRA of a repository that names no file: under diffusers' name for it, or the only one there is."""
    hub = hub_options(hub_source(repository), settings, None)
    try:
        return download(repository, _LORA_WEIGHTS, hub, "LORA_REPOS")
    except MissingFileError:
        files = _files_of(repository, hub)
    weights = [file for file in files if file.endswith(".safetensors")]
    if len(weights) != 1:
        raise ModelError(f"{repository} holds {len(weights)} .safetensors files; name one in LORA_REPOS")
    return download(repository, weights[0], hub, "LORA_REPOS")


def _files_of(repository: str, hub: Mapping[str, Any]) -> list[str]:
    try:
        return list(HfApi(token=hub["token"]).list_repo_files(repository))
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(f"{repository} cannot be listed by the hub: {first_line(error)}") from error
