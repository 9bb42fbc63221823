"""IP-Adapter: a picture that speaks beside the prompt (arXiv:2308.06721), attached for one job and taken off after it.

Attached, it gives the denoiser other attention processors and a projection of the picture. Both are kept here while
it is off, and the denoiser is then exactly as it was loaded.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from worker.engine.denoiser.runner import PassRunner
from worker.engine.pipelines import find_denoiser
from worker.engine.unreadable import explain_unreadable
from worker.engine.weights import check_weights, limit_weights
from worker.errors import ModelError, SettingsError
from worker.models.adapters import AdapterCatalogue
from worker.models.hub import find_beside, find_file, find_folder
from worker.models.json_file import read_json
from worker.models.variants import choose_weights, log_variant
from worker.models.view import show_component
from worker.request import ImagePrompt
from worker.settings import Settings

log = logging.getLogger("worker")

_PROJECTIONS = ("encoder_hid_proj", "image_proj")  # the denoisers' names for it
_KIND = "encoder_hid_dim_type"  # the entry of their config that tells of it


@dataclass(frozen=True)
class _State:
    """What of a denoiser an IP-Adapter changes."""

    processors: dict[str, Any]
    projections: dict[str, Any]
    kind: Any


class IPAdapter:
    """An IP-Adapter for one pipeline's denoiser, attached when made."""

    def __init__(self, pipeline: Any, runner: PassRunner, file: Path, encoder: Path) -> None:
        """Load it, and register its image encoder with the pipeline.

        Args:
            runner: of the pipeline's denoiser; told when the adapter acts in it.
            file: the adapter's weights.
            encoder: folder of its image encoder.

        Raises:
            ModelError: the files are no IP-Adapter, or one for another model.
        """
        self._pipeline = pipeline
        self._runner = runner
        self._denoiser = find_denoiser(pipeline)
        self._off = self._state()
        whose, files = f"IP_ADAPTER_ENCODER: {encoder}", sorted(encoder.glob("*.safetensors"))
        with explain_unreadable(f"{whose} cannot be loaded"), limit_weights(whose, files):
            pipeline.register_modules(**_image_encoder(encoder, pipeline))
        check_weights(pipeline.image_encoder, f"{whose} is no whole image encoder")
        what = f"IP_ADAPTER: {file.name} does not fit {type(pipeline).__name__}"
        with explain_unreadable(what):
            with safe_open(file, framework="pt") as weights:
                if any("_lora." in name for name in weights.keys()):  # noqa: SIM118
                    raise ValueError("FaceID adapters need a face recogniser, which is not part of this worker")
            with limit_weights(what, [file]):
                pipeline.load_ip_adapter(str(file.parent), subfolder="", weight_name=file.name)
            if any(weight.is_meta for weight in self._denoiser.parameters()):
                raise ValueError("weights that an IP-Adapter has are missing")
            self._check_width(pipeline.image_encoder.config)
        self._on = self._state()
        for part in (*self._on.processors.values(), *self._on.projections.values()):
            if isinstance(part, torch.nn.Module):
                check_weights(part, what)

    def detach(self) -> None:
        """Leave the denoiser as it was; to be called once the weights are where they belong."""
        self._put(self._off)

    @contextmanager
    def activate(self, prompt: ImagePrompt | None) -> Iterator[None]:
        """Let the adapter act inside the `with`, if there is a picture for it."""
        if prompt is None:
            yield
            return
        self._put(self._on)
        try:
            self._pipeline.set_ip_adapter_scale(prompt.scale)
            self._runner.attach("IP-Adapter", prompt.scale)
            yield
        finally:
            self._put(self._off)
            self._runner.attach("IP-Adapter")

    def _check_width(self, encoder: Any) -> None:
        """What the image encoder says must be what the adapter's projection takes: an embedding, or hidden states."""
        for name, layer in self._denoiser.named_modules():
            entry = {"image_embeds": "projection_dim", "proj_in": "hidden_size"}.get(name.rpartition(".")[2])
            if not name.startswith(_PROJECTIONS) or entry is None:
                continue
            came = getattr(encoder, entry, None)
            if came is not None and came != layer.in_features:
                raise ValueError(f"it is for an image encoder of {entry} {layer.in_features}, this one's is {came}")

    def _state(self) -> _State:
        projections = {name: getattr(self._denoiser, name) for name in _PROJECTIONS if hasattr(self._denoiser, name)}
        return _State(dict(self._denoiser.attn_processors), projections, getattr(self._denoiser.config, _KIND, None))

    def _put(self, state: _State) -> None:
        for name in _PROJECTIONS:  # before the processors, of which a projection may have some itself
            if hasattr(self._denoiser, name):
                setattr(self._denoiser, name, state.projections.get(name))
        self._denoiser.set_attn_processor(dict(state.processors))  # it empties what it is given
        if hasattr(self._denoiser.config, _KIND):  # diffusers writes and reads the attribute, not the entry beside it
            setattr(self._denoiser.config, _KIND, state.kind)


def _image_encoder(folder: Path, pipeline: Any) -> dict[str, Any]:
    """The encoder, and for SigLIP its own way of preparing pictures; diffusers knows CLIP's."""
    weights = choose_weights(file.name for file in folder.iterdir())
    log_variant("image encoder", weights, None)
    options = {"dtype": pipeline.dtype, "use_safetensors": True, "local_files_only": True}
    siglip = read_json(folder / "config.json").get("model_type") == "siglip_vision_model"
    with show_component(folder, weights) as view:
        if siglip:
            processor = transformers.SiglipImageProcessor.from_pretrained(str(view), local_files_only=True)
            encoder = transformers.SiglipVisionModel.from_pretrained(str(view), **options)
            return {"image_encoder": encoder, "feature_extractor": processor}
        return {"image_encoder": transformers.CLIPVisionModelWithProjection.from_pretrained(str(view), **options)}


def load_ip_adapter(
    catalogue: AdapterCatalogue, pipeline: Any, runner: PassRunner, settings: Settings
) -> IPAdapter | None:
    """The IP-Adapter, attached; None if the settings name none.

    Raises:
        ModelError: it cannot be found or read, or fits another model.
        SettingsError: the model takes none.
    """
    if catalogue.ip_adapter is None:
        return None
    if not hasattr(pipeline, "load_ip_adapter"):
        raise SettingsError(f"IP_ADAPTER: {type(pipeline).__name__} takes none")
    try:
        file = find_file("IP_ADAPTER", catalogue.ip_adapter, settings)
        encoder = catalogue.image_encoder or find_beside(catalogue.ip_adapter, "image_encoder")
    except ModelError as error:
        raise ModelError(f"IP_ADAPTER: {error}") from error
    try:
        folder = find_folder("IP_ADAPTER_ENCODER", encoder, settings)
    except ModelError as error:
        raise ModelError(f"IP_ADAPTER_ENCODER: {error}") from error
    log.info("IP-Adapter %s", file.name)
    return IPAdapter(pipeline, runner, file, folder)
