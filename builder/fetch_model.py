"""Bake models: fetch what MODEL_NAME and those beside it name from the hub into a folder like the hub's cache.

Runs while the image is built, never in the worker, and takes the files that the worker would. The token comes from a
build secret and is written nowhere.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from worker.models.addresses import check_suffix, read_hub
from worker.models.variants import choose_variants, choose_weights, is_data, is_weights
from worker.text import hide_credentials

SECRET = Path("/run/secrets/HF_TOKEN")
DENOISER, DENOISER_SETTING = "transformer", "TRANSFORMER_NAME"
INDEX, CONFIG = "model_index.json", "config.json"
OPTIONAL = ("feature_extractor", "image_encoder", "safety_checker")  # parts that the worker can do without
CAN_RUN_CODE = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py"}


def fetch(name: str, revision: str | None, cache: Path, setting: str) -> None:
    """Fetch a pipeline (`org/name`), its VAE only, or one file (`org/name/file.safetensors`).

    A pipeline whose denoiser comes from a file of its own is fetched without: its config is enough.

    Raises:
        ValueError: what is named cannot be baked, or there are no such weights.
    """
    token, place = read_token(), read_hub(name)
    hub: dict[str, Any] = {"revision": place.revision or revision, "token": token}
    if place.kind == "file":
        check_suffix(place.location, (".gguf",) if setting == DENOISER_SETTING else ())
        hf_hub_download(place.repository, place.path, cache_dir=cache, **hub)
        return
    if setting == DENOISER_SETTING or (place.kind == "folder" and setting != "VAE_NAME"):
        whole = "" if setting == DENOISER_SETTING else "a whole repository or "
        raise ValueError(f"it names no file; {whole}one file can be baked")
    files = HfApi().list_repo_files(place.repository, **hub)
    if setting == "VAE_NAME":
        wanted = choose_vae_files(files, place.path)
    else:
        index = Path(hf_hub_download(place.repository, INDEX, cache_dir=cache, **hub))
        without = setting == "MODEL_NAME" and os.environ.get(DENOISER_SETTING)
        wanted = choose_model_files(files, json.loads(index.read_text()), DENOISER if without else None)
    snapshot_download(place.repository, cache_dir=cache, allow_patterns=[escape(one) for one in wanted], **hub)


def read_token() -> str | None:
    """The token in the build's secret, if it has one.

    Raises:
        ValueError: it is none.
    """
    token = SECRET.read_text().strip() if SECRET.is_file() else ""
    if not all("!" <= letter <= "~" for letter in token):
        raise ValueError("the secret HF_TOKEN should hold a token and nothing else")
    return token or None


def choose_model_files(files: Sequence[str], index: Mapping[str, Any], without: str | None) -> list[str]:
    """Those of a model's parts.

    Args:
        index: what model_index.json says.
        without: the part whose weights are left out.

    Raises:
        ValueError: there are no weights that the worker would load.
    """
    variant = os.environ.get("MODEL_VARIANT") or None
    parts = [name for name, entry in index.items() if isinstance(entry, list) and entry and isinstance(entry[0], str)]
    weights = choose_variants(files, parts, variant)
    for part in (part for part in parts if part not in OPTIONAL):
        inside = [file for file in files if file.startswith(f"{part}/")]
        if not inside:
            raise ValueError(f"there is no folder {part} in it")
        if part != without and not weights[part].names and any(is_weights(file) for file in inside):
            raise ValueError(f"{part} has no .safetensors weights of a name that is known")
    if variant and not any(found.variant == variant for found in weights.values()):
        raise ValueError(f"it has no weights of MODEL_VARIANT {variant!r}")
    data = [file for file in files if file.partition("/")[0] in parts and is_data(file.partition("/")[2])]
    return [INDEX, *data, *(f"{part}/{name}" for part in parts if part != without for name in weights[part].names)]


def choose_vae_files(files: Sequence[str], path: str) -> list[str]:
    """Those of a VAE, in its own repository or folder, or in a whole model's."""
    own = f"{path}/" if path else ""
    folder = own if f"{own}{CONFIG}" in files else f"{own}vae/"
    names = [file.removeprefix(folder) for file in files if file.startswith(folder)]
    weights = choose_weights(names, os.environ.get("MODEL_VARIANT") or None)
    if CONFIG not in names or not weights.names:
        raise ValueError(f"{folder or 'it'} should hold {CONFIG} and .safetensors weights beside it")
    return [f"{folder}{name}" for name in (CONFIG, *weights.names)]


def check(cache: Path) -> int:
    """The size in bytes of all that was fetched.

    Raises:
        ValueError: a file is among it that can run code when it is loaded.
    """
    files = [path for path in cache.rglob("*") if path.is_file()]
    refused = sorted(path.name for path in files if path.suffix in CAN_RUN_CODE)
    if refused:
        raise ValueError(f"it brings files that can run code when loaded: {', '.join(refused)}")
    return sum(path.stat().st_size for path in files if not path.is_symlink())


def main(cache: Path) -> str | None:
    """Fetch into `cache`; returns what went wrong, as one line."""
    wanted = dict.fromkeys(("MODEL_NAME", "REFINER_NAME", "VAE_NAME", DENOISER_SETTING))
    wanted["MODEL_NAME"] = os.environ.get("MODEL_REVISION") or None
    for variable, revision in wanted.items():
        name = os.environ.get(variable)
        if not name:
            continue
        try:
            fetch(name, revision, cache, variable)
            print(f"{variable}: baked {hide_credentials(name)}; {check(cache) / 1e9:.2f} GB in all")
        except Exception as error:  # of the hub, its library, its HTTP library, a disk; or an index of another form
            reason = " ".join(str(error).split()) or type(error).__name__
            return hide_credentials(f"{variable}: {name} cannot be baked: {reason}")
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
