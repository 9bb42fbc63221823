"""What jobs may name beside the model: LoRAs, ControlNets, an IP-Adapter, words of textual inversion.

The settings -> names and where each is. The tables are made once, at start; a job's name is only ever looked up in
one, never made into a path. Knows folders and names, not tensors.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from worker.errors import ModelError, SettingsError
from worker.models.checks import check_file
from worker.settings import EMBEDDED_LORAS, Settings

log = logging.getLogger("worker")

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(/\w[^/]*)*")


@dataclass(frozen=True)
class AdapterCatalogue:
    """Names -> places.

    Attributes:
        loras: name -> file, or hub id with or without a file name.
        controlnets: name -> folder or hub id.
        ip_adapter: file, or hub id and file name.
        image_encoder: folder, or hub id and folder, of the IP-Adapter's image encoder.
        embeddings: word -> file.
    """

    loras: Mapping[str, str]
    controlnets: Mapping[str, str]
    ip_adapter: str | None
    image_encoder: str | None
    embeddings: Mapping[str, str]


def find_adapters(settings: Settings) -> AdapterCatalogue:
    """What the settings offer to jobs.

    Raises:
        SettingsError: a folder is missing, or a list cannot be read.
    """
    embedded = EMBEDDED_LORAS if settings.model_name is None else None
    loras = _files("LORA_DIR", settings.lora_dir or embedded)
    for repository in _split_list(settings.lora_repos):
        file = repository.split("/")[2:]
        if not _REPOSITORY.fullmatch(repository) or (file and not file[-1].endswith(".safetensors")):
            allowed = "hub ids like org/name or org/name/file.safetensors, with commas between"
            raise SettingsError(f"LORA_REPOS: got {repository!r}; should be {allowed}")
        loras[repository.removesuffix(".safetensors")] = repository
    return AdapterCatalogue(
        loras=MappingProxyType(loras),
        controlnets=MappingProxyType(_controlnets(settings.controlnets)),
        ip_adapter=settings.ip_adapter,
        image_encoder=settings.ip_adapter_encoder,
        embeddings=MappingProxyType(_files("EMBEDDINGS_DIR", settings.embeddings_dir)),
    )


def _files(setting: str, folder: Path | None) -> dict[str, str]:
    """Every whole .safetensors file below the folder, by its path there without the ending."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise SettingsError(f"{setting}: got {str(folder)!r}, which is no folder")
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _PICKLES:
            log.warning("%s: leaving out %s: only .safetensors files are read, others can run code", setting, name)
        if path.suffix != ".safetensors":
            continue
        try:
            check_file(path)
        except ModelError as error:
            log.warning("%s: leaving out %s: %s", setting, name, error)
            continue
        if not _is_unicode(name):
            log.warning("%s: leaving out %a: its name is no Unicode, so that no job could name it", setting, name)
            continue
        found[name.removesuffix(".safetensors")] = str(path)
    log.info("%s: %d files", setting, len(found))
    return found


def _is_unicode(name: str) -> bool:
    """False for a name whose bytes on the disk are no UTF-8, which Python keeps as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _split_list(setting: str | None) -> list[str]:
    return [entry.strip() for entry in (setting or "").split(",") if entry.strip()]


def _controlnets(setting: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in _split_list(setting):
        name, equals, place = (part.strip() for part in entry.partition("="))
        if not (name and equals and place):
            raise SettingsError(f"CONTROLNETS: got {entry!r}; should be name=folder or name=org/name, comma between")
        if name in found:
            raise SettingsError(f"CONTROLNETS: got {name!r} twice; should be one place for each name")
        found[name] = place
    return found
