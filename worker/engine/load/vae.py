"""VAE_NAME -> the pipeline with another VAE: one that reads and draws the same latents as the model's own."""

import logging
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import safe_open

from worker.engine.load.completeness import check_complete
from worker.engine.unreadable import MAX_REASON_LENGTH, explain_unreadable
from worker.engine.weights import check_weights, limit_weights
from worker.errors import MissingFileError, ModelError, SettingsError
from worker.files import UnreadableError, temporary_folder
from worker.models.civitai import fetch_place
from worker.models.hub import first_line, hub_options, local_component, local_file
from worker.models.json_file import read_json
from worker.models.locate import ModelSource, find_vae
from worker.models.variants import choose_weights, log_variant
from worker.models.view import show_component
from worker.settings import Settings

log = logging.getLogger("worker")

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model"
# Where a file has the decoder's first convolution, which reads latents: a VAE alone, or a whole checkpoint.
_FIRST = tuple(f"{prefix}decoder.conv_in.weight" for prefix in ("", "first_stage_model.", "vae."))
_DIFFUSERS_MARK = "decoder.conv_norm_out.weight"  # which the original code calls decoder.norm_out.weight


def replace_vae(pipeline: Any, settings: Settings) -> None:
    """Give the pipeline the VAE that VAE_NAME names, in the number format of its own; without a name, do nothing.

    Raises:
        ModelError: it cannot be found or read.
        SettingsError: it does not fit the model.
    """
    if settings.vae_name is None:
        return
    own = getattr(pipeline, "vae", None)
    if not {"latent_channels", "block_out_channels"} <= {*getattr(own, "config", {})}:
        raise SettingsError(f"VAE_NAME: {type(pipeline).__name__} has no VAE that could be replaced")
    try:
        source = find_vae(fetch_place(settings.vae_name, settings))
        log.info("VAE %s: VAE_NAME says so; %s", source.name, source.reason)
        vae = _read(source, own, settings)
    except ModelError as error:
        raise ModelError(f"VAE_NAME: {error}") from error
    check_weights(vae, f"VAE_NAME: {source.name}")
    _check_fit(source.name, _scale(vae), _scale(own), "pixels per latent each way")
    pipeline.register_modules(vae=vae)


def _read(source: ModelSource, own: Any, settings: Settings) -> Any:
    if source.is_file:
        return _read_file(local_file(source, hub_options(source, settings), "VAE_NAME"), own)
    try:
        folder = local_component(source, settings, "VAE_NAME")
    except MissingFileError:  # there is no VAE of its own; it may be one of a whole model
        folder = local_component(source, settings, "VAE_NAME", below="vae")
    return _read_folder(folder, own, settings.model_variant)


def _read_folder(folder: Path, own: Any, wanted: str | None) -> Any:
    config = read_json(folder / CONFIG)
    kinds = {kind.__name__: kind for kind in (type(own), AutoencoderKL, AutoencoderTiny)}
    kind = kinds.get(str(config.get("_class_name")))
    if kind is None:
        raise SettingsError(f"VAE_NAME: {folder} is {config.get('_class_name')!r}; allowed: {', '.join(kinds)}")
    _check_fit(folder, config.get("latent_channels", 4), own.config.latent_channels, "latent channels")
    weights = choose_weights((file.name for file in folder.iterdir()), wanted)
    log_variant(f"VAE {folder.name}", weights, wanted)
    with (
        explain_unreadable(f"{folder} cannot be loaded as a VAE", folder),
        show_component(folder, weights) as view,
        limit_weights(str(folder), sorted(view.glob("*.safetensors"))),
    ):
        vae = kind.from_pretrained(view, use_safetensors=True, dtype=own.dtype)
    check_complete({"the VAE": vae}, f"{folder} is no complete VAE")
    return vae


def _read_file(path: Path, own: Any) -> Any:
    """A file says nothing of its config: it gets the model's own, which must fit its weights."""
    if not isinstance(own, AutoencoderKL):
        raise SettingsError(f"VAE_NAME: {type(own).__name__} does not load from one file; name a folder or a hub id")
    with safe_open(path, framework="pt") as file:
        names = {*file.keys()}
        first = next((name for name in _FIRST if name in names), None)
        channels = file.get_slice(first).get_shape()[1] if first else 0
    if not first:
        raise ModelError(f"{path} holds no VAE")
    _check_fit(path, channels, own.config.latent_channels, "latent channels")
    read = _read_diffusers if _DIFFUSERS_MARK in names else _read_original
    try:
        vae = read(path, own)
    except UnreadableError as error:
        raise ModelError(str(error)) from error
    except NotImplementedError as error:  # torch's "Cannot copy out of meta tensor": nothing has filled it
        raise ModelError(f"{path} is no complete VAE") from error
    except (SingleFileComponentError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise ModelError(f"{path} is no VAE like the model's own: {first_line(error)[:MAX_REASON_LENGTH]}") from error
    check_complete({"the VAE": vae}, f"{path} is no complete VAE")
    return vae


def _read_original(path: Path, own: Any) -> Any:
    with temporary_folder() as config:
        own.save_config(config)
        return AutoencoderKL.from_single_file(str(path), config=str(config), local_files_only=True, dtype=own.dtype)


def _read_diffusers(path: Path, own: Any) -> Any:
    """As a folder of its own, because diffusers reads the older names of its attention layers there only."""
    with temporary_folder() as folder:
        own.save_config(folder)
        (folder / f"{WEIGHTS}.safetensors").symlink_to(path.resolve())
        return AutoencoderKL.from_pretrained(folder, use_safetensors=True, dtype=own.dtype)


def _scale(vae: Any) -> int:
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _check_fit(name: object, came: object, needed: object, what: str) -> None:
    if came != needed:
        raise SettingsError(f"VAE_NAME: {name} has {came} {what}; the model needs {needed}")
