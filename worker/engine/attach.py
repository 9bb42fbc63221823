"""What the settings offer beside the model -> loaded and fitted to it: ControlNets, an IP-Adapter, words, LoRA files.

Everything is read from safetensors only, and checked to fit the model before the first job comes.
"""

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file

from worker.addons import Addons
from worker.engine.hub import MissingFile, download, first_line, hub_options, split
from worker.engine.image_prompt import ImagePrompter
from worker.engine.tasks import reads_clip, task_classes
from worker.errors import ModelError, SettingsError
from worker.families import CONTROLLED, TEXT
from worker.models import Source, find_component, find_model
from worker.settings import Settings
from worker.weights import check_file, read_json

log = logging.getLogger("worker")

CONFIG = "config.json"
_WIDTHS = ("cross_attention_dim", "joint_attention_dim")  # of the text that a denoiser and its ControlNet attend to
_LORA_WEIGHTS = "pytorch_lora_weights.safetensors"


def load_controlnets(addons: Addons, pipeline: Any, settings: Settings) -> dict[str, Any]:
    """The ControlNets by name, in the pipeline's number format, on the CPU.

    Raises:
        ModelError: one cannot be found or read.
        SettingsError: the model takes none, or not this one.
    """
    return {name: _controlnet(name, place, pipeline, settings) for name, place in addons.controlnets.items()}


def _controlnet(name: str, place: str, pipeline: Any, settings: Settings) -> Any:
    setting = f"CONTROLNETS: {name}"
    controlled = task_classes(type(pipeline)).get(TEXT + CONTROLLED)
    if controlled is None:
        raise SettingsError(f"{setting}: {type(pipeline).__name__} takes no ControlNet")
    try:
        source = find_component(place)
        hub = hub_options(source, settings, None)
        folder = source.location
        config = Path(folder) / CONFIG if source.kind == "folder" else download(folder, CONFIG, hub, "CONTROLNETS")
        entries = read_json(config)
        kind = getattr(diffusers, str(entries.get("_class_name")), None)
        if kind is None or not _is_for(kind, controlled):
            raise SettingsError(f"{setting}: {place} is {entries.get('_class_name')}, no ControlNet for this model")
        _insist_on_width(setting, entries, pipeline)
        log.info("ControlNet %s: %s", name, source.reason)
        return kind.from_pretrained(folder, dtype=pipeline.dtype, use_safetensors=True, **hub)
    except ModelError as error:
        raise ModelError(f"{setting}: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{setting}: {place} cannot be loaded: {first_line(error)}") from error


def _is_for(kind: type, controlled: type) -> bool:
    """Whether the pipeline's class says that it takes such a ControlNet."""
    taken = str(inspect.signature(controlled).parameters["controlnet"].annotation)
    return re.search(rf"\b{kind.__name__}\b", taken) is not None


def _insist_on_width(setting: str, entries: Mapping[str, Any], pipeline: Any) -> None:
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    for width in _WIDTHS:
        came, needed = entries.get(width), denoiser.config.get(width)
        if came is not None and needed is not None and came != needed:
            raise SettingsError(f"{setting}: it attends to text of width {came}, this model's is {needed}")


def load_image_prompter(addons: Addons, pipeline: Any, settings: Settings) -> ImagePrompter | None:
    """The IP-Adapter, attached; None if the settings name none.

    Raises:
        ModelError: it cannot be found or read, or fits another model.
        SettingsError: the model takes none.
    """
    if addons.ip_adapter is None:
        return None
    if not hasattr(pipeline, "load_ip_adapter"):
        raise SettingsError(f"IP_ADAPTER: {type(pipeline).__name__} takes none")
    try:
        file = _file("IP_ADAPTER", addons.ip_adapter, settings)
        encoder = addons.image_encoder or f"{addons.ip_adapter.rpartition('/')[0]}/image_encoder"
        folder = _folder("IP_ADAPTER_ENCODER", encoder, settings)
    except ModelError as error:
        raise ModelError(f"IP_ADAPTER: {error}") from error
    log.info("IP-Adapter %s", file.name)
    return ImagePrompter(pipeline, file, folder)


def _file(setting: str, place: str, settings: Settings) -> Path:
    source = find_model(place)
    if source.kind not in ("file", "hub file"):
        raise SettingsError(f"{setting}: got {place!r}; should be a file, or org/name/file.safetensors")
    hub = hub_options(source, settings, None)
    path = Path(source.location) if source.kind == "file" else download(*split(source.location), hub, setting)
    check_file(path)
    return path


def _folder(setting: str, place: str, settings: Settings) -> Path:
    """The local copy of a component's folder; on the hub it may lie anywhere in a repository."""
    if Path(place).expanduser().exists() or place.startswith(("/", ".", "~")) or place.count("/") < 2:
        source = find_component(place)
        if source.kind == "folder":
            return Path(source.location)
        raise SettingsError(f"{setting}: got {place!r}; should be a folder, or org/name/folder")
    repository, folder = split(place)
    hub = hub_options(_on_the_hub(repository), settings, None)
    config = download(repository, f"{folder}/{CONFIG}", hub, setting)
    check_file(download(repository, f"{folder}/model.safetensors", hub, setting))
    return config.parent


def _on_the_hub(repository: str) -> Source:
    return Source("hub", repository, repository, "it is a hub id")


def lora_fetcher(settings: Settings) -> Callable[[str], Path]:
    """What turns a LoRA's place into its file, checked; from the hub at need."""

    def fetch(place: str) -> Path:
        if place.count("/") == 1 and not Path(place).exists():
            file = _from_repository(place, settings)
            check_file(file)
            return file
        return _file("LORA_REPOS", place, settings)

    return fetch


def _from_repository(repository: str, settings: Settings) -> Path:
    """The LoRA of a repository that names no file: under diffusers' name for it, or the only one there is."""
    hub = hub_options(_on_the_hub(repository), settings, None)
    try:
        return download(repository, _LORA_WEIGHTS, hub, "LORA_REPOS")
    except MissingFile:
        files = _files_of(repository, hub)
    weights = [file for file in files if file.endswith(".safetensors")]
    if len(weights) != 1:
        raise ModelError(f"{repository} holds {len(weights)} .safetensors files; name one in LORA_REPOS")
    return download(repository, weights[0], hub, "LORA_REPOS")


def _files_of(repository: str, hub: Mapping[str, Any]) -> list[str]:
    try:
        return list(HfApi(token=hub["token"]).list_repo_files(repository))
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(f"{repository} cannot be listed by the hub: {first_line(error)}") from error


def load_words(addons: Addons, pipeline: Any) -> frozenset[str]:
    """Teach the text encoders the words of textual inversion; a file for other encoders is left out with a warning.

    Returns:
        the words that prompts may use. In the tokenizers each is written as `token` has it.

    Raises:
        SettingsError: the model has no text encoder that could learn any.
    """
    if addons.embeddings and not reads_clip(type(pipeline)):
        raise SettingsError(f"EMBEDDINGS_DIR: {type(pipeline).__name__} takes no textual inversion")
    return frozenset(word for word, file in addons.embeddings.items() if _teach(pipeline, word, Path(file)))


def token(word: str) -> str:
    """A word of textual inversion as the tokenizers know it, which no ordinary text contains."""
    return f"<{word}>"


def spelled(text: str, words: frozenset[str]) -> str:
    """The text with each of these words, where it stands alone, as the tokenizers know it."""
    if not words:
        return text
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(rf"(?<![\w<])(?:{longest_first})(?![\w>])", lambda found: token(found[0]), text)


def _teach(pipeline: Any, word: str, file: Path) -> bool:
    weights = load_file(file)
    encoders = {"clip_l": ("tokenizer", "text_encoder"), "clip_g": ("tokenizer_2", "text_encoder_2")}
    if not hasattr(pipeline, "text_encoder_2"):
        encoders = {next(iter(weights), ""): ("tokenizer", "text_encoder")}
    parts = [
        (weights.get(key), getattr(pipeline, names[0]), getattr(pipeline, names[1])) for key, names in encoders.items()
    ]
    if any(vectors is None or vectors.shape[-1:] != (encoder.config.hidden_size,) for vectors, _, encoder in parts):
        log.warning("EMBEDDINGS_DIR: leaving out %s: it is for other text encoders", word)
        return False
    for vectors, tokenizer, encoder in parts:
        pipeline.load_textual_inversion(
            {token(word): vectors}, token=token(word), tokenizer=tokenizer, text_encoder=encoder
        )
    return True
