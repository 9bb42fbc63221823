"""REFINER_NAME -> SDXL's refiner, around the parts of the base model that it shares."""

import logging
from typing import Any

from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from worker.engine.load.pretrained import read_index, read_pipeline
from worker.engine.load.quantize import quantization_options
from worker.engine.load.single_file import load_refiner_file
from worker.engine.weights import check_weights
from worker.errors import ModelError, SettingsError
from worker.models.civitai import fetch_place
from worker.models.hub import hub_options, local_file
from worker.models.locate import ModelSource, find_model
from worker.settings import Settings

log = logging.getLogger("worker")

_SHARED = ("text_encoder_2", "tokenizer_2", "vae")


def load_refiner(base: Any, settings: Settings) -> StableDiffusionXLImg2ImgPipeline | None:
    """The refiner that the settings name, in the number format of the base model; None if they name none.

    Raises:
        ModelError: it cannot be found or read.
        SettingsError: the base model takes none, or the refiner cannot be read as the settings want it.
    """
    if settings.refiner_name is None:
        return None
    if not isinstance(base, StableDiffusionXLPipeline):
        raise SettingsError(
            f"REFINER_NAME: only Stable Diffusion XL that draws from prompts takes one; this is {type(base).__name__}"
        )
    try:
        source = find_model(fetch_place(settings.refiner_name, settings))
        log.info("refiner %s: %s", source.name, source.reason)
        refiner = _read(source, base, settings)
    except ModelError as error:
        raise ModelError(f"REFINER_NAME: {error}") from error
    if settings.quantize == "none":
        check_weights(refiner.unet, f"REFINER_NAME: {source.name}")
    refiner.set_progress_bar_config(disable=True)
    return refiner


def _read(source: ModelSource, base: Any, settings: Settings) -> Any:
    shared = {name: base.components[name] for name in _SHARED}
    if source.is_file:
        if settings.quantize != "none":
            raise SettingsError("QUANTIZE: needs a refiner in diffusers layout, which REFINER_NAME is not")
        return load_refiner_file(local_file(source, hub_options(source, settings), "REFINER_NAME"), base.dtype, shared)
    options = {"dtype": base.dtype, **shared}
    options |= quantization_options(settings, {"unet": ["diffusers", "UNet2DConditionModel"]}, base.dtype)
    index = read_index(source, settings, "REFINER_NAME")
    kind = StableDiffusionXLImg2ImgPipeline
    return read_pipeline(kind, kind, source, index, settings, options, "refiner")
