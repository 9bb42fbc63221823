"""What jobs may name beside the model: LoRAs, ControlNets, an IP-Adapter, words of textual inversion.

The settings -> names and where each is. The tables are made once, at start; a job's name is only ever looked up in
one, never made into a path. Knows folders and names, not tensors.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from worker.errors import ModelError
from worker.files import StalledError, UnreadableError, walk_folder
from worker.models.addresses import WEIGHTS, check_suffix, read_hub
from worker.models.checks import check_file
from worker.models.civitai import fetch_place
from worker.models.hub import find_file
from worker.settings import EMBEDDED_LORAS, Settings, split_list

log = logging.getLogger("worker")

MAX_LEFT_OUT_LINES = 20  # in the log, of files of one folder that cannot be read
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class AdapterCatalogue:
    """Names -> places.

    Attributes:
        loras: name -> file, or hub id or address of a repository or a file in one.
        controlnets: name -> folder, file, hub id or address.
        ip_adapter: file, or hub id and file name.
        image_encoder: folder, or hub id and folder, of the IP-Adapter's image encoder.
        embeddings: word -> file.
        left_out_loras, left_out_embeddings: names of files that cannot be read -> why, as the end of a sentence.
    """

    loras: Mapping[str, str]
    controlnets: Mapping[str, str]
    ip_adapter: str | None
    image_encoder: str | None
    embeddings: Mapping[str, str]
    left_out_loras: Mapping[str, str]
    left_out_embeddings: Mapping[str, str]


def find_adapters(settings: Settings) -> AdapterCatalogue:
    """What the settings offer to jobs; what is on Civitai, and embeddings, are fetched if need be.

    Raises:
        ModelError: an address names nothing that can be offered, or what it names cannot be fetched.
    """
    embedded = EMBEDDED_LORAS if settings.model_name is None else None
    loras, no_loras = _files("LORA_DIR", settings.lora_dir or embedded)
    embeddings, no_embeddings = _files("EMBEDDINGS_DIR", settings.embeddings_dir)
    for entry in split_list(settings.lora_repos):
        _add("LORA_REPOS", entry, loras, settings)
    for entry in split_list(settings.embedding_repos):
        _add("EMBEDDING_REPOS", entry, embeddings, settings)
    return AdapterCatalogue(
        loras=MappingProxyType(loras),
        controlnets=MappingProxyType(_controlnets(settings.controlnets)),
        ip_adapter=settings.ip_adapter,
        image_encoder=settings.ip_adapter_encoder,
        embeddings=MappingProxyType(embeddings),
        left_out_loras=MappingProxyType(no_loras),
        left_out_embeddings=MappingProxyType(no_embeddings),
    )


def _add(setting: str, entry: str, offered: dict[str, str], settings: Settings) -> None:
    """Offer what an entry of a list names. A file that is here goes by its own name, as in AUTOMATIC1111."""
    try:
        place = fetch_place(entry, settings)
        if place == entry and setting == "LORA_REPOS":
            named = read_hub(entry)
            if named.kind == "folder":
                raise ModelError(f"{entry} names a folder; name the file in it")
            if named.kind == "file":
                check_suffix(named.location)
            offered[named.location.removesuffix(WEIGHTS)] = entry
            return
        file = Path(place) if place != entry else find_file(setting, entry, settings)
    except ModelError as error:
        raise ModelError(f"{setting}: {error}") from error
    name = file.stem
    if name in offered:
        name = f"{file.stem}_{file.parent.name}"
        log.warning("%s: there is another %s; the one of %s is offered as %s", setting, file.stem, entry, name)
    offered[name] = str(file)


def _files(setting: str, folder: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Every whole .safetensors file below the folder, by its path there without the ending; and what was left out.

    Raises:
        ModelError: the disk does not answer, or the folder cannot be read.
    """
    if folder is None:
        return {}, {}
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    bad = 0
    for path in _walk(setting, folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in (*_PICKLES, ".safetensors"):
            continue
        if (reason := _why_unread(setting, path, name)) is None:
            found[name.removesuffix(".safetensors")] = str(path.absolute())
            continue
        bad += 1
        if bad <= MAX_LEFT_OUT_LINES:
            log.warning("%s: leaving out %s: %s", setting, name if _is_unicode(name) else ascii(name), reason)
        for spelling in (name, name.removesuffix(path.suffix)):
            left_out[spelling] = f"was left out: {reason.replace(str(path), 'the file')}"
    if bad > MAX_LEFT_OUT_LINES:
        log.warning("%s: leaving out %d more files", setting, bad - MAX_LEFT_OUT_LINES)
    log.info("%s: %d file%s", setting, len(found), "" if len(found) == 1 else "s")
    return found, {name: reason for name, reason in left_out.items() if name not in found}


def _walk(setting: str, folder: Path) -> list[Path]:
    """All that is below the folder; what of it cannot be listed is told."""
    try:
        paths, unread = walk_folder(folder)
    except UnreadableError as error:
        raise ModelError(f"{setting}: {error}") from error
    for problem in unread:
        log.warning("%s: leaving out what is in a folder: %s", setting, problem)
    return paths


def _why_unread(setting: str, path: Path, name: str) -> str | None:
    """Why this file is not offered; None if it is."""
    if path.suffix in _PICKLES:
        return "only .safetensors files are read, others can run code"
    if not _is_unicode(name):
        return "its name is no Unicode, so that no job could name it"
    try:
        check_file(path)
    except ModelError as error:
        if isinstance(error.__cause__, StalledError):  # so would all the others, each for as long
            raise ModelError(f"{setting}: {error}") from error
        return str(error)
    return None


def _is_unicode(name: str) -> bool:
    """False for a name whose bytes on the disk are no UTF-8, which Python keeps as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _controlnets(setting: str | None) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in split_list(setting))
    return {name.strip(): place.strip() for name, _, place in pairs}
