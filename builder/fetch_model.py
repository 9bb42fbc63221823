"""Bake models: fetch what MODEL_NAME and those beside it name from the hub into a folder like the hub's cache.

Runs while the image is built, never in the worker. diffusers chooses the files as it does when it loads: the wanted
variant, safetensors only. The token comes from a build secret and is written nowhere.
"""

import os
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import file_exists, hf_hub_download

from worker.errors import ModelError
from worker.models.addresses import HubPlace, check_suffix, read_hub
from worker.text import hide_credentials

SECRET = Path("/run/secrets/HF_TOKEN")
DENOISER, DENOISER_SETTING = "transformer", "TRANSFORMER_NAME"
CAN_RUN_CODE = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py"}


def fetch(name: str, revision: str | None, cache: Path, setting: str) -> None:
    """Fetch a pipeline (`org/name`), its VAE only, or one file (`org/name/file.safetensors`).

    A pipeline whose denoiser comes from a file of its own is fetched without: its config is enough.
    """
    token, place = SECRET.read_text().strip() if SECRET.is_file() else None, read_hub(name)
    revision = place.revision or revision
    if place.kind == "file":
        check_suffix(place.location, (".gguf",) if setting == DENOISER_SETTING else ())
        hf_hub_download(place.repository, place.path, revision=revision, token=token, cache_dir=cache)
        return
    if setting == "VAE_NAME":
        fetch_vae(place, token, cache)
        return
    if place.kind == "folder" or setting == DENOISER_SETTING:
        whole = "" if setting == DENOISER_SETTING else "a whole repository or "
        raise ValueError(f"it names no file; {whole}one file can be baked")
    options: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache}
    given: dict[str, None] = {}
    if setting == "MODEL_NAME" and os.environ.get(DENOISER_SETTING):
        hf_hub_download(place.repository, f"{DENOISER}/config.json", **options)
        given = {DENOISER: None}
    variant = os.environ.get("MODEL_VARIANT") or None
    from diffusers import DiffusionPipeline  # seconds that a single file and a refusal need not wait for

    DiffusionPipeline.download(place.repository, variant=variant, use_safetensors=True, **options, **given)


def fetch_vae(place: HubPlace, token: str | None, cache: Path) -> None:
    """Fetch a VAE from its own repository, or from a whole model's: the wanted variant, or the plain one."""

    def there(file: str) -> bool:
        return file_exists(place.repository, file, revision=place.revision, token=token)

    own = f"{place.path}/" if place.path else ""
    folder = own if there(f"{own}config.json") else f"{own}vae/"
    plain = f"{folder}diffusion_pytorch_model.safetensors"
    wanted = f"{folder}diffusion_pytorch_model.{os.environ.get('MODEL_VARIANT')}.safetensors"
    for file in (f"{folder}config.json", wanted if there(wanted) else plain):
        hf_hub_download(place.repository, file, revision=place.revision, token=token, cache_dir=cache)


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
        except (OSError, ValueError, ModelError) as error:
            cause = error.__cause__ or error  # diffusers hides what the hub said behind its own advice
            reason = " ".join(str(cause).split()) or type(cause).__name__
            return hide_credentials(f"{variable}: {name} cannot be baked: {reason}")
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
