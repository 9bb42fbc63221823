"""A LoRA file -> its layers under the names that its trainer gave them, and what else it holds.

Trainers write the same factors under many names. Nothing here knows the model; nothing of the header is taken but
numbers.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.engine.adapters.tensors import holds_numbers, read_numbers, read_vectors
from worker.files import UnreadableError, copy_to_memory, exists, open_file, read_file

Parts = dict[str, Tensor]  # what a part is -> its tensor; the words are those of `_ENDINGS`

MAX_FILE_BYTES = 4_000_000_000
MAX_LAYERS = 5_000  # of one file; the largest model that LoRAs are traded for has some 1,000
MAX_BUNDLED_WORDS = 50  # of one file
MAX_CONFIG_BYTES = 1_000_000
MAX_WORD_LENGTH = 100  # characters of a bundled word
MAX_NUMBER = 1_000_000  # of ranks and alphas
_ALPHAS = "alpha_pattern"
_PEFT_FILE, _PEFT_CONFIG, PEFT_PREFIX = "adapter_model", "adapter_config.json", "base_model.model."
_BUNDLED = "bundle_emb."  # OneTrainer's words of textual inversion, beside the layers

# How a tensor's name ends -> what it is of its layer. Longer endings stand before those that they end with.
_ENDINGS = {
    **{
        f"{joint}{way}{weight}": part
        for joint, down, up in (
            (".lora_", "A", "B"),
            (".lora_", "down", "up"),
            (".lora.", "down", "up"),
            (".lora_linear_layer.", "down", "up"),
            ("_lora.", "down", "up"),
            (".", "down", "up"),
        )
        for way, part in ((down, "down"), (up, "up"))
        for weight in (".default.weight", ".weight")
    },
    ".lora_mid.weight": "mid",
    ".lora_B.bias": "bias",
    "_lora.alpha": "alpha",
    ".alpha": "alpha",
    ".dora_scale": "dora_scale",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector.default.weight": "magnitude",
    **{f".hada_{factor}": f"hada_{factor}" for factor in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{factor}": f"lokr_{factor}" for factor in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    ".diff": "diff",
}
# What else people take for a LoRA, by how names begin or end.
_OTHER_KINDS = (
    ("a Control-LoRA, which is a kind of ControlNet", ("lora_controlnet",), ()),
    ("an IP-Adapter, which IP_ADAPTER takes", ("ip_adapter.", "image_proj.", "ip_adapter_proj_model."), ()),
    ("a ControlNet", ("control_model.", "controlnet_", "input_hint_block.", "zero_convs."), ()),
    (
        "an embedding (textual inversion), which EMBEDDINGS_DIR takes",
        ("emb_params", "clip_l", "clip_g", "text_encoders_", "string_to_", "<"),
        (),
    ),
    (
        "a whole model, which MODEL_NAME takes",
        ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner."),
        (),
    ),
    ("a VAE, which VAE_NAME takes", ("encoder.down", "decoder.up", "decoder.mid"), ()),
    ("of OFT layers, which rotate weights and cannot be added to them", (), (".oft_blocks", ".oft_diag", ".oft_R")),
    ("of (IA)3 layers, which scale weights and cannot be added to them", (), (".on_input",)),
    ("of GLoRA layers, which are not supported", (), (".a1.weight", ".b1.weight")),
)


@dataclass(frozen=True)
class LoraFile:
    """What one file holds.

    Attributes:
        layers: the file's own name of a layer -> its parts.
        words: bundled words of textual inversion.
        others: names of the tensors that are neither.
        config: numbers of peft's config, from the file's header or from beside it, by component; under "" for all.
            What it says of single layers is as `_read_alphas` has it.
        made_for: what the header says of the model that it was trained on; empty if it says nothing.
        notes: what the caller should know.
    """

    layers: Mapping[str, Parts]
    words: tuple[str, ...]
    others: tuple[str, ...]
    config: Mapping[str, Mapping[str, Any]]
    made_for: str
    notes: tuple[str, ...]


def read_lora(file: Path) -> LoraFile:
    """Read all of a file that is whole.

    Raises:
        ValueError: it holds no layer of a LoRA, or numbers that are none; says what it is instead.
    """
    layers: dict[str, Parts] = {}
    words, others = dict[str, None](), []
    with copy_to_memory(file, MAX_FILE_BYTES) as copy, safe_open(copy, framework="pt") as opened:
        header = opened.metadata() or {}
        for key in opened.keys():  # noqa: SIM118, it is no mapping
            name, part = split_key(key)
            if key.startswith(_BUNDLED):
                words[key.removeprefix(_BUNDLED).rpartition(".")[0]] = None
            elif part and holds_numbers(opened, key):
                layers.setdefault(name, {})[part] = read_numbers(opened, key)
            else:
                others.append(key)
            if len(layers) > MAX_LAYERS:
                raise ValueError(f"it holds more than {MAX_LAYERS} layers")
    if not layers:
        raise ValueError(f"it holds no layer of a LoRA; it {_describe_others(others)}")
    config, notes = _read_config(file, header, layers)
    return LoraFile(layers, tuple(words), tuple(others), config, _read_origin(header), notes)


def read_bundled_words(file: Path) -> dict[str, Parts]:
    """Only the words that a LoRA file brings with it -> text encoder -> vectors; none of what is no whole file."""
    words: dict[str, Parts] = {}
    with contextlib.suppress(OSError, SafetensorError), open_file(file), safe_open(file, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118, it is no mapping
            if key.startswith(_BUNDLED):
                word, _, encoder = key.removeprefix(_BUNDLED).rpartition(".")
                vectors = read_vectors(opened, key) if _is_word(word) else None
                if vectors is not None and (word in words or len(words) < MAX_BUNDLED_WORDS):
                    words.setdefault(word, {})[encoder] = vectors
    return words


def _is_word(word: str) -> bool:
    """Whether prompts could hold it."""
    return bool(word.strip()) and word.isprintable() and len(word) <= MAX_WORD_LENGTH


def adapter_name(name: str) -> str:
    """The name as peft, which makes it a module's beside that module's own names, can take it; no two in one case."""
    plain = (letter.isalnum() and letter == letter.lower() for letter in name)
    return "file_" + "".join(one if keep else f"_{ord(one):x}_" for one, keep in zip(name, plain, strict=True))


def split_key(key: str) -> tuple[str, str]:
    """A tensor's name -> the layer's, and what it is of that layer; empty if it is of none."""
    for ending, part in _ENDINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), part
    return key, ""


def find_scale(file: LoraFile, component: str, layer: str, rank: int | None) -> float:
    """What the product of a layer's factors is multiplied with, where the config says so; 1 where nothing does.

    Args:
        rank: None if the factors have none.

    Raises:
        ValueError: a number is none.
    """
    config = file.config.get(component) or file.config.get("") or {}
    divisor = rank or _positive(config.get("r", 1))
    alpha = config.get("lora_alpha", config.get("alpha", divisor))
    named: Mapping[str, tuple[int, Any]] = config.get(_ALPHAS) or {}
    parts = layer.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    if found := [named[end] for end in ends if end in named]:
        alpha = max(found, key=lambda one: one[0])[1]
    return _number(alpha) / (math.sqrt(divisor) if config.get("use_rslora") is True else divisor)


def _read_alphas(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with, for each end of layers' names that has an alpha, its place, of which the last counts, and that.

    Raises:
        ValueError: it names layers by an expression.
    """
    patterns = config.get(_ALPHAS) or {}
    if len(patterns) > MAX_LAYERS:
        raise ValueError(f"its config names {len(patterns)} layers; allowed: {MAX_LAYERS}")
    named: dict[str, tuple[int, Any]] = {}
    for place, (pattern, value) in enumerate(patterns.items()):
        name = str(pattern).removeprefix("^")
        if not re.fullmatch(r"[\w.-]{1,300}", name):
            raise ValueError(f"its config names layers by an expression, {str(pattern)[:60]!r}; it should name them")
        named[name] = place, value
    return {**config, _ALPHAS: named}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_NUMBER:
        raise ValueError(f"its config has {ascii(value)[:60]}; it should be a number up to {MAX_NUMBER}")
    return value


def _positive(value: object) -> float:
    if (number := _number(value)) <= 0:
        raise ValueError(f"its config has {number}; it should be above 0")
    return number


def _describe_others(keys: list[str]) -> str:
    for kind, starts, ends in _OTHER_KINDS:
        if any(key.startswith(starts) or (ends and key.endswith(ends)) for key in keys):
            return f"seems to be {kind}" if starts else f"is {kind}"
    return f"holds {len(keys)} tensors, such as {keys[0][:60]!r}" if keys else "is empty"


def _read_config(
    file: Path, header: Mapping[str, str], layers: Iterable[str]
) -> tuple[Mapping[str, Mapping[str, Any]], tuple[str, ...]]:
    """peft's config by component, and what there is to say of it."""
    if text := header.get("lora_adapter_metadata"):  # as diffusers writes it, unet.r, unet.lora_alpha, ...
        parts: dict[str, dict[str, Any]] = {}
        for key, value in _parse(text).items():
            component, _, entry = key.rpartition(".")
            parts.setdefault(component, {})[entry] = value
        return {component: _read_alphas(entries) for component, entries in parts.items()}, ()
    beside = file.with_name(_PEFT_CONFIG)
    if file.stem.startswith(_PEFT_FILE) and exists(beside):
        return {"": _read_alphas(_parse(_read_beside(beside)))}, ()
    if any(PEFT_PREFIX in layer for layer in layers):
        return {}, (f"it has no {_PEFT_CONFIG} beside it, so that its alpha is taken to be its rank",)
    return {}, ()


def _read_beside(config: Path) -> str:
    try:
        return read_file(config, MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except UnreadableError as error:
        raise ValueError(f"its {config.name} {error.reason}") from error


def _parse(text: str) -> dict[str, Any]:
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"its config has {len(text)} characters; allowed: {MAX_CONFIG_BYTES}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its config cannot be read as JSON") from error
    if not isinstance(found, dict):
        raise ValueError("its config should be a JSON object")
    return {key: value for key, value in found.items() if not key.endswith("_pattern") or isinstance(value, dict)}


def _read_origin(header: Mapping[str, str]) -> str:
    """What the header names as the model, if it is a name: kohya's scripts and the model spec write it."""
    for entry in ("modelspec.architecture", "ss_base_model_version"):
        if re.fullmatch(r"[\w./ -]{1,60}", header.get(entry, "")):
            return header[entry]
    return ""
