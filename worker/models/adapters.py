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
from worker.models.checks import check_file
from worker.settings import EMBEDDED_LORAS, Settings, split_list

log = logging.getLogger("worker")

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class AdapterCatalogue:
    """Names -> places.

    Attributes:
        loras: name -> file, or hub id with or without a file name.
        controlnets: name -> folder or hub id.
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
    """What the settings offer to jobs."""
    embedded = EMBEDDED_LORAS if settings.model_name is None else None
    loras, no_loras = _files("LORA_DIR", settings.lora_dir or embedded)
    embeddings, no_embeddings = _files("EMBEDDINGS_DIR", settings.embeddings_dir)
    for repository in split_list(settings.lora_repos):
        loras[repository.removesuffix(".safetensors")] = repository
    return AdapterCatalogue(
        loras=MappingProxyType(loras),
        controlnets=MappingProxyType(_controlnets(settings.controlnets)),
        ip_adapter=settings.ip_adapter,
        image_encoder=settings.ip_adapter_encoder,
        embeddings=MappingProxyType(embeddings),
        left_out_loras=MappingProxyType(no_loras),
        left_out_embeddings=MappingProxyType(no_embeddings),
    )


def _files(setting: str, folder: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Every whole .safetensors file below the folder, by its path there without the ending; and what was left out."""
    if folder is None:
        return {}, {}
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in (*_PICKLES, ".safetensors"):
            continue
        if (reason := _why_unread(path, name)) is None:
            found[name.removesuffix(".safetensors")] = str(path)
            continue
        log.warning("%s: leaving out %s: %s", setting, name if _is_unicode(name) else ascii(name), reason)
        for spelling in (name, name.removesuffix(path.suffix)):
            left_out[spelling] = f"was left out: {reason.replace(str(path), 'the file')}"
    log.info("%s: %d files", setting, len(found))
    return found, {name: reason for name, reason in left_out.items() if name not in found}


def _why_unread(path: Path, name: str) -> str | None:
    """Why this file is not offered; None if it is."""
    if path.suffix in _PICKLES:
        return "only .safetensors files are read, others can run code"
    if not _is_unicode(name):
        return "its name is no Unicode, so that no job could name it"
    try:
        check_file(path)
    except ModelError as error:
        return str(error)
    return None


def _is_unicode(name: str) -> bool:
    """False for a name whose bytes on the disk are no UTF-8, which Python keeps as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _controlnets(setting: str | None) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in split_list(setting))
    return {name.strip(): place.strip() for name, _, place in pairs}
