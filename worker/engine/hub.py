"""One file at a time from the model hub; what stands in the way is said in one sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from worker.errors import ModelError
from worker.models import Source, download_folder
from worker.settings import Settings


class MissingFile(ModelError):
    """The repository is there, but it has no such file."""


def hub_options(source: Source, settings: Settings, revision: str | None) -> dict[str, Any]:
    """What the hub is asked with; nothing for local files, so that the token goes nowhere else."""
    if source.kind in ("file", "folder"):
        return {}
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    return {"revision": revision, "token": token, "cache_dir": download_folder()}


def split(location: str) -> tuple[str, str]:
    """org/name/file -> the repository and the file."""
    owner, repository, file = location.split("/", 2)
    return f"{owner}/{repository}", file


def download(repository: str, file: str, hub: Mapping[str, Any], setting: str = "MODEL_NAME") -> Path:
    """The local copy of a file on the hub, fetched if need be.

    Args:
        hub: as from `hub_options`.
        setting: where the owner named the repository.

    Raises:
        MissingFile: the repository has no such file.
        ModelError: the repository cannot be read.
    """
    try:
        return Path(hf_hub_download(repository, file, **hub))
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
        raise MissingFile(f"{repository} has no {file} at revision {hub['revision'] or 'main'}") from error
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(f"{repository} cannot be fetched from the hub: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an exception says first."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
