"""Are these files what they should be? Every weight file is checked before anything reads it, and named if it is bad.

Only safetensors count as weights: other formats can run code when they are read. Nothing here knows torch.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from worker.errors import ModelError
from worker.files import UnreadableError, exists, open_file, read_file, wait_for_disk
from worker.models.paths import check_entries, name_unreadable

SAFETY_CHECKER = "safety_checker"
MAX_JSON_BYTES = 50_000_000  # the index of the largest models has some 10
_MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it


def check_model(folder: Path) -> Path:
    """Check a model in diffusers layout: every component that has weights has them whole. Returns the folder.

    A safety checker is left to those who want it: it may be absent.

    Raises:
        ModelError: names the first file that is missing, incomplete or of another kind.
    """
    if not exists(folder / "model_index.json"):
        raise ModelError(f"the folder {folder} holds no model_index.json, so it is no model in diffusers layout")
    index = read_json(folder / "model_index.json")
    for component, entry in index.items():
        if isinstance(entry, list) and entry and entry[0] is not None and component != SAFETY_CHECKER:
            _check_listed(folder / component, str(entry[-1]))
    return folder


def check_vae(folder: Path) -> Path:
    """Check a VAE's folder, or the one in a whole model's folder. Returns the VAE's own.

    Raises:
        ModelError: as in `check_model`.
    """
    found = next((place for place in (folder, folder / "vae") if exists(place / "config.json")), None)
    if found is None:
        raise ModelError(f"the folder {folder} holds neither the config.json of a VAE nor a folder vae with one")
    return check_component(found)


def check_component(folder: Path) -> Path:
    """Check the folder of one component, with its config and weights. Returns the folder.

    Raises:
        ModelError: as in `check_model`.
    """
    check_entries(folder)
    read_json(folder / "config.json")
    _check_weights(folder)
    return folder


def check_file(path: Path) -> None:
    """Check one safetensors file: its header is readable and the file as long as the header says.

    Raises:
        ModelError: says what the file is instead.
    """
    with name_unreadable():
        wait_for_disk(path, lambda came: _read_header(path))
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} {describe_file(path, error)}") from error


def _read_header(path: Path) -> None:
    """Read what a library will map into memory: in its hands, a disk that does not answer stops the whole process."""
    with open_file(path) as file:
        file.read(min(int.from_bytes(file.read(8), "little"), _MAX_HEADER_BYTES))


def describe_file(path: Path, error: Exception) -> str:
    """What a file that is no readable safetensors file seems to be, to be said after its name."""
    try:
        with open_file(path) as file:
            start = file.read(64)
    except UnreadableError as unreadable:
        return unreadable.reason
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it points to; download the file itself"
    if start.lstrip().startswith(b"<"):
        return "is a web page, not a model; the download went wrong"
    if start.startswith(b"PK"):
        return "is a zip or .ckpt file under another name; convert it to safetensors"
    return f"is no safetensors file, or is damaged or incomplete: {str(error).strip().splitlines()[0]}"


def describe_no_weights(names: Iterable[str]) -> str:
    """What a component's folder holds instead of safetensors weights, to be said after its name."""
    others = sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt", ".msgpack")))
    instead = f"; {others[0]} can run code when it is read and is refused" if others else ""
    return f"holds no .safetensors weights{instead}"


def _check_listed(folder: Path, kind: str) -> None:
    """Check a component that model_index.json lists as of this class."""
    check_entries(folder)
    if (folder / "config.json").is_file():
        check_component(folder)
    elif any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds weights, but their config.json is missing")
    elif not folder.is_dir():
        raise ModelError(f"{folder} is missing")
    elif folder.name.startswith("tokenizer") and not kind.startswith("ByT5") and not _has_vocabulary(folder):
        raise ModelError(f"{folder} holds no vocabulary")


def _has_vocabulary(folder: Path) -> bool:
    names = [file.name for file in folder.iterdir()]
    return any(name == "tokenizer.json" or name.startswith("vocab") or name.endswith(".model") for name in names)


def _check_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} {describe_no_weights(file.name for file in folder.iterdir())}")
    for index in folder.glob("*.safetensors.index*.json"):
        shards = set(read_json(index)["weight_map"].values())
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        # An index without any of its files belongs to a variant that was not downloaded.
        if missing and len(missing) < len(shards):
            raise ModelError(f"{folder} is half downloaded: {missing[0]} is missing")
    for file in files:
        check_file(file)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: there is none.
    """
    with name_unreadable():
        text = read_file(path, MAX_JSON_BYTES)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path} cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} should hold a JSON object")
    return content
