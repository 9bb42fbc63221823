"""Are these files what they should be? Every weight file is checked before anything reads it, and named if it is bad.

Only safetensors, and GGUF for a denoiser, count as weights: other formats can run code when they are read. Nothing here
knows torch.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from worker.errors import ModelError
from worker.files import UnreadableError, exists, open_file, wait_for_disk
from worker.models.configs import check_config
from worker.models.gguf import GGUF, read_gguf
from worker.models.index import INDEX, read_model_index
from worker.models.json_file import read_json
from worker.models.paths import check_entries, name_unreadable
from worker.models.tokenizers import check_tokenizer

SAFETY_CHECKER = "safety_checker"
DENOISER = "transformer"  # that can come from a file of its own
MAX_SHARDS = 1_000
MAX_TENSORS = 20_000  # of one file; the largest models that are published have some 5,000
MAX_TENSOR_NAME = 500  # characters
MAX_REASON_LENGTH = 200  # characters of what a library says
_MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it
_CONFIGS = "config.json", "scheduler_config.json", "preprocessor_config.json", "processor_config.json"
_COUNT_PIXELS = ("Qwen", "Glm")  # their processors bound a picture's pixels, and call them edges
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")


def check_model(folder: Path, wanted: Collection[str] | None = None) -> Path:
    """Check a model in diffusers layout: every component that has weights has them whole. Returns the folder.

    Args:
        wanted: components to check; all but a safety checker, which may be absent, if left out.

    Raises:
        ModelError: names the first file that is missing, incomplete or of another kind.
    """
    if not exists(folder / INDEX):
        raise ModelError(f"the folder {folder} holds no {INDEX}, so it is no model in diffusers layout")
    for component, (_, kind) in read_model_index(folder / INDEX).parts.items():
        if component != SAFETY_CHECKER if wanted is None else component in wanted:
            check_part(folder / component, kind)
    return folder


def check_base(folder: Path) -> Path:
    """Check a model whose denoiser comes from elsewhere: every other component, as `check_model` does.

    Raises:
        ModelError: as in `check_model`.
    """
    if not exists(folder / INDEX):
        return check_model(folder)
    parts = read_model_index(folder / INDEX).parts
    return check_model(folder, [part for part in parts if part not in (DENOISER, SAFETY_CHECKER)])


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
    config = folder / "config.json"
    check_config(config, read_json(config))
    _check_weights(folder)
    return folder


def check_file(path: Path) -> None:
    """Check one file of weights: its header is readable, not of too many tensors, and the file as long as it says.

    Raises:
        ModelError: says what the file is instead.
    """
    if path.suffix == GGUF:
        read_gguf(path)
        return
    with name_unreadable():
        wait_for_disk(path, lambda came: _read_header(path))
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
    except (SafetensorError, OSError, MemoryError) as error:
        raise ModelError(f"{path} {describe_file(path, error)}") from error
    if len(names) > MAX_TENSORS:
        raise ModelError(f"{path} holds {len(names)} tensors; should be {MAX_TENSORS} at most")
    if (longest := max(map(len, names), default=0)) > MAX_TENSOR_NAME:
        raise ModelError(f"{path} holds a tensor whose name has {longest} characters; allowed: {MAX_TENSOR_NAME}")


def _read_header(path: Path) -> None:
    """Read what a library will map into memory: in its hands, a disk that does not answer stops the whole process."""
    with open_file(path) as file:
        file.read(min(int.from_bytes(file.read(8), "little"), _MAX_HEADER_BYTES))


def describe_file(path: Path, error: Exception) -> str:
    """What a file that is no readable safetensors file seems to be, to be said after its name."""
    try:
        size = path.stat().st_size
        with open_file(path) as file:
            start = file.read(64)
    except UnreadableError as unreadable:
        return unreadable.reason
    except OSError as unreadable:
        return f"cannot be read: {unreadable.strerror}"
    if isinstance(error, MemoryError) or "Cannot allocate memory" in str(error):
        return f"cannot be read: there is too little memory for its {size / 1e9:.1f} GB"
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it points to; download the file itself"
    if start.lstrip().lower().startswith(_PAGES):  # a header's length may begin with "<" alone
        return "is a web page, not a model; the download went wrong"
    if start.startswith(b"PK\x03\x04"):
        return "is a zip or .ckpt file under another name; convert it to safetensors"
    reason = str(error).strip().splitlines()[0][:MAX_REASON_LENGTH]
    return f"is no safetensors file, or is damaged or incomplete: {reason}"


def describe_no_weights(names: Iterable[str]) -> str:
    """What a component's folder holds instead of safetensors weights, to be said after its name."""
    others = sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt", ".msgpack")))
    instead = f"; {others[0]} can run code when it is read and is refused" if others else ""
    return f"holds no .safetensors weights{instead}"


def check_part(folder: Path, kind: str) -> None:
    """Check a component that model_index.json lists as of this class.

    Raises:
        ModelError: as in `check_model`.
    """
    check_entries(folder)
    rules = (folder / "tokenizer.json").is_file()  # a processor brings them, too
    if (folder / "config.json").is_file():
        check_component(folder)
    elif any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds weights, but their config.json is missing")
    elif not folder.is_dir():
        raise ModelError(f"{folder} is missing")
    elif folder.name.startswith("scheduler") and not (folder / "scheduler_config.json").is_file():
        raise ModelError(f"{folder} holds no scheduler_config.json")
    elif (folder.name.startswith("tokenizer") or (folder / "tokenizer_config.json").is_file()) and not rules:
        check_tokenizer(folder, byte_level=kind.startswith("ByT5"))
    if rules:
        check_tokenizer(folder)
    for name in _CONFIGS[1:]:
        if (folder / name).is_file():
            counts_pixels = kind.startswith(_COUNT_PIXELS)
            check_config(folder / name, read_json(folder / name), counts_pixels)


def _check_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} {describe_no_weights(file.name for file in folder.iterdir())}")
    for index in folder.glob("*.safetensors.index*.json"):
        shards = read_shards(index)
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        # An index without any of its files belongs to a variant that was not downloaded.
        if missing and len(missing) < len(shards):
            raise ModelError(f"{folder} is half downloaded: {missing[0]} is missing")
    for file in files:
        check_file(file)


def read_shards(index: Path) -> set[str]:
    """The files in which an index says that the weights are, each in the folder of the index.

    Raises:
        ModelError: it says something else.
    """
    content = read_json(index)
    weights, allowed = content.get("weight_map"), f"names of .safetensors files beside it, {MAX_SHARDS} at most"
    if not isinstance(weights, dict) or not weights or not isinstance(content.get("metadata"), dict):
        raise ModelError(f"{index} should hold metadata and a weight_map, tensor -> file")
    for file in weights.values():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise ModelError(f"{index}: weight_map: got {repr(file)[:80]}; should be {allowed}")
    shards = {*weights.values()}
    if len(shards) > MAX_SHARDS:
        raise ModelError(f"{index}: weight_map: got {len(shards)} files; should be {allowed}")
    return shards
