"""A model's name -> where its files are, with the reason for the choice. Knows folders and names, not tensors."""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from worker.errors import ModelError
from worker.files import StalledError, UnreadableError, check_readable, exists, is_folder, list_folder, read_file
from worker.models.addresses import HubPlace, check_suffix, read_hub
from worker.models.checks import check_base, check_component, check_file, check_model, check_vae
from worker.models.gguf import GGUF
from worker.models.index import INDEX, read_model_index
from worker.models.paths import name_unreadable
from worker.models.variants import is_data
from worker.settings import EMBEDDED_MODEL, VOLUME

log = logging.getLogger("worker")

MAX_REF_BYTES = 1_000  # of the file that says which commit a branch is; a commit has 40
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]{0,199}", re.ASCII)

Check = Callable[[Path], Path]  # a folder -> the folder in it that is wanted, whole; raises ModelError

# Folders in the hub's cache layout, fastest start first.
CACHES: Mapping[str, Path] = MappingProxyType(
    {
        "RunPod's model cache": VOLUME / "huggingface-cache" / "hub",
        "the image": Path("/opt/models/hub"),
        "the network volume": VOLUME / "huggingface" / "hub",
    }
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model is.

    Attributes:
        kind: a folder in diffusers layout, a single checkpoint file, a repository on the hub, or a file or (of a part
            beside the model) a folder there.
        location: path, hub id, or hub id and the path in the repository.
        name: as answers and pictures name it.
        reason: why this source was chosen, for the log.
        revision: branch, tag or commit on the hub.
    """

    kind: Literal["folder", "file", "hub", "hub file", "hub folder"]
    location: str
    name: str
    reason: str
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is one file, here or on the hub."""
        return self.kind in ("file", "hub file")


def find_model(name: str | None, revision: str | None = None, caches: Mapping[str, Path] = CACHES) -> ModelSource:
    """The model of this name: an existing path, else a hub id or an address on the hub, looked for in the caches first.

    Args:
        revision: branch, tag or commit of a hub id.

    Raises:
        ModelError: it is neither, or its files are not whole.
    """
    if name is None:
        return ModelSource(
            "folder", str(EMBEDDED_MODEL), EMBEDDED_MODEL.name, "MODEL_NAME is not set: the embedded model"
        )
    return _find(name, revision, caches, check_model)


def find_base(name: str | None, revision: str | None = None, caches: Mapping[str, Path] = CACHES) -> ModelSource:
    """The model of this name, all of it but the denoiser, which comes from elsewhere.

    Raises:
        ModelError: as in `find_model`.
    """
    return find_model(name) if name is None else _find(name, revision, caches, check_base)


def seek(name: str | None, revision: str | None = None) -> Path | None:
    """Where on this machine the files of this name seem to be, for whoever only looks at them; None if nowhere.

    Nothing is checked: that takes long, and is done where they are loaded.

    Raises:
        ModelError: it is no name.
    """
    if name is None:
        return EMBEDDED_MODEL
    if exists_here(name):
        return Path(name).expanduser()
    place = read_hub(name)
    with name_unreadable():
        found = (_find_snapshot(cache, place.repository, place.revision or revision) for cache in CACHES.values())
        return next((snapshot / place.path for snapshot in found if snapshot is not None), None)


def find_vae(name: str, caches: Mapping[str, Path] = CACHES) -> ModelSource:
    """The VAE of this name, looked for as a model is: a VAE's own folder or repository, a whole model's, or a file.

    Raises:
        ModelError: as in `find_model`.
    """
    return _find(name, None, caches, check_vae)


def find_transformer(name: str, caches: Mapping[str, Path] = CACHES) -> ModelSource:
    """A denoiser alone: one file of weights, whose config is that of the model beside it.

    Raises:
        ModelError: as in `find_model`.
    """
    return _find(name, None, caches, check_component, (GGUF,))


def find_component(name: str, caches: Mapping[str, Path] = CACHES) -> ModelSource:
    """A part that stands beside the model, such as a ControlNet: a folder with its config, or a repository of its own.

    Raises:
        ModelError: as in `find_model`.
    """
    return _find(name, None, caches, check_component)


def exists_here(name: str) -> bool:
    """Whether a name is the path of something on this machine, be it a link to nothing.

    Raises:
        ModelError: its disk does not answer.
    """
    try:
        path = Path(name).expanduser()
    except (RuntimeError, ValueError):  # the home of nobody
        return False
    with name_unreadable():
        return exists(path)


def _find(
    name: str, revision: str | None, caches: Mapping[str, Path], check: Check, suffixes: Sequence[str] = ()
) -> ModelSource:
    if exists_here(name):
        return _find_local(Path(name).expanduser(), check, suffixes)
    place = read_hub(name)
    if place.kind == "folder" and check in (check_model, check_base):
        raise ModelError(f"{name} names a folder in {place.repository}; a model is a whole repository, or one file")
    if place.kind == "file":
        check_suffix(place.location, suffixes)
    if place.revision and revision and place.revision != revision:
        raise ModelError(f"{name} names revision {place.revision}, and MODEL_REVISION {revision}; leave one out")
    revision = place.revision or revision
    if revision and not _REVISION.fullmatch(revision):
        raise ModelError(f"got the revision {revision[:80]!r}; should be a branch, tag or commit")
    return _find_cached(place, revision, caches, check) or _hub(place, revision)


def _find_local(path: Path, check: Check, suffixes: Sequence[str]) -> ModelSource:
    with name_unreadable():
        folder = is_folder(path)
    if folder:
        return ModelSource("folder", str(check(path)), path.resolve().name, "it is an existing folder")
    with name_unreadable():
        check_readable(path)
    check_suffix(path.name, suffixes)
    check_file(path)
    return ModelSource("file", str(path), path.stem, "it is an existing file")


def _find_cached(place: HubPlace, revision: str | None, caches: Mapping[str, Path], check: Check) -> ModelSource | None:
    for where, cache in caches.items():
        with name_unreadable():
            snapshot = _find_snapshot(cache, place.repository, revision)
        if snapshot is None:
            continue
        try:
            found = snapshot / place.path
            if place.kind == "file":
                check_file(found)
            else:
                found = check(found)
                _check_listing(cache, snapshot)
        except ModelError as error:
            log.warning("not loading the copy in %s: %s", where, error)
            continue
        kind: Literal["file", "folder"] = "file" if place.kind == "file" else "folder"
        return ModelSource(kind, str(found), place.location, f"found in {where}")
    return None


def _find_snapshot(cache: Path, repository: str, revision: str | None) -> Path | None:
    """The folder of a revision in the hub's cache layout; names there may differ in case."""
    wanted = f"models--{repository.replace('/', '--')}".casefold()
    try:
        name = next((name for name in list_folder(cache) if name.casefold() == wanted), None)
    except StalledError:
        raise
    except UnreadableError:
        return None
    if name is None:
        return None
    commit = _read_ref(cache / name / "refs" / (revision or "main")) or revision
    snapshot = cache / name / "snapshots" / (commit or "")
    return snapshot if commit and is_folder(snapshot) else None


def _read_ref(path: Path) -> str | None:
    """The commit that a branch or tag stands for in the hub's cache; None where it is not said."""
    try:
        return read_file(path, MAX_REF_BYTES).decode("ascii", "replace").strip()
    except StalledError:
        raise
    except UnreadableError:
        return None


def _check_listing(cache: Path, snapshot: Path) -> None:
    """Check that a download of a model was not broken off: small files of a component are missed by nobody else.

    The hub's own download keeps a list of the repository's files before it fetches any.

    Raises:
        ModelError: a config or a part of a vocabulary is missing.
    """
    repository = snapshot.parents[1].name.removeprefix("models--").replace("--", "/")
    if not (snapshot / INDEX).is_file():  # a component of its own, which was checked
        return
    try:
        listed = get_cached_repo_tree(repository, revision=snapshot.name, cache_dir=cache)
    except (CachedRepoTreeNotFoundError, ValueError):  # stored by others
        return
    parts = [part for part in read_model_index(snapshot / INDEX).parts if (snapshot / part).is_dir()]
    for file in listed:
        component, _, name = file.path.partition("/")
        if component in parts and is_data(name) and not (snapshot / file.path).exists():
            raise ModelError(f"{snapshot / component} is half downloaded: {name} is missing")


def _hub(place: HubPlace, revision: str | None) -> ModelSource:
    kinds: Mapping[str, Literal["hub", "hub file", "hub folder"]] = {
        "repository": "hub",
        "file": "hub file",
        "folder": "hub folder",
    }
    reason = "no local copy was found: the hub"
    return ModelSource(kinds[place.kind], place.location, place.location, reason, revision)


def download_folder() -> Path | None:
    """Where downloads go so that the next worker finds them: the network volume, if there is one."""
    with name_unreadable():
        return CACHES["the network volume"] if is_folder(VOLUME) and os.access(VOLUME, os.W_OK) else None
