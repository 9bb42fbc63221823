"""Words of textual inversion: taught to the text encoders at start, put into prompts as the tokenizers know them."""

import logging
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.engine.adapters.lora_file import adapter_name, read_bundled_words, split_key
from worker.engine.adapters.tensors import MAX_VECTORS, read_vectors
from worker.engine.pipelines import reads_clip
from worker.engine.weights import find_bad_number
from worker.errors import SettingsError
from worker.files import copy_to_memory
from worker.models.adapters import AdapterCatalogue
from worker.request import Lora

log = logging.getLogger("worker")

MAX_FILE_BYTES = 200_000_000

# How trainers name what they have taught to Stable Diffusion XL's two text encoders.
_NAMES = {"": ("clip_l", "text_encoders_0"), "_2": ("clip_g", "text_encoders_1")}
_WIDTHS = {768: "Stable Diffusion 1's", 1024: "Stable Diffusion 2's", 1280: "Stable Diffusion XL's second"}


@dataclass(frozen=True)
class Words:
    """What prompts may hold.

    Attributes:
        learned: in the tokenizers each is written as `word_token` has it.
        notes: word -> why it was left out, or what of its file has no effect.
    """

    learned: frozenset[str]
    notes: Mapping[str, str]


def load_words(catalogue: AdapterCatalogue, pipeline: Any) -> Words:
    """Teach the text encoders the words of textual inversion; a file for other encoders is left out with a warning.

    Raises:
        SettingsError: the model has no text encoder that could learn any.
    """
    if catalogue.embeddings and not reads_clip(type(pipeline)):
        raise SettingsError(f"EMBEDDINGS_DIR: {type(pipeline).__name__} takes no textual inversion")
    learned, notes = [], dict(catalogue.left_out_embeddings)
    for word, file in catalogue.embeddings.items():
        try:
            note = learn_word(pipeline, word_token(word), _read(Path(file)))
        except (ValueError, OSError, SafetensorError) as error:
            log.warning("EMBEDDINGS_DIR: leaving out %s: %s", word, error)
            notes[word] = f"was left out: {error}"
            continue
        learned.append(word)
        notes.pop(word, None)
        if note:
            log.warning("EMBEDDINGS_DIR: %s: %s", word, note)
            notes[word] = note
    return Words(frozenset(learned), MappingProxyType(notes))


def _read(file: Path) -> dict[str, Tensor | None]:
    """The tensors of a file that can be vectors; of the others, only the names."""
    with copy_to_memory(file, MAX_FILE_BYTES) as copy, safe_open(copy, framework="pt") as opened:
        return {key: read_vectors(opened, key) for key in opened.keys()}  # noqa: SIM118, it is no mapping


def load_bundled_words(catalogue: AdapterCatalogue, pipeline: Any) -> Mapping[str, Mapping[str, str]]:
    """Teach the text encoders the words that LoRA files on this machine bring with them, as OneTrainer writes them.

    Returns:
        LoRA -> word -> what it is in the tokenizers; a word that this model cannot learn is not among them.
    """
    found: dict[str, dict[str, str]] = {}
    for lora, place in catalogue.loras.items() if reads_clip(type(pipeline)) else ():
        for word, weights in read_bundled_words(Path(place)).items():
            token = word_token(f"{adapter_name(lora)}_{adapter_name(word)}")
            try:
                learn_word(pipeline, token, weights)
            except ValueError as error:
                log.warning("LoRA %s: leaving out its embedding %a: %s", lora, word, error)
            else:
                found.setdefault(lora, {})[word] = token
    return MappingProxyType(found)


def word_token(word: str) -> str:
    """A word of textual inversion as the tokenizers know it, which no ordinary text contains.

    They read upper case as lower, composed letters as one and any space as a blank, so that other words need others.
    """
    as_read = " ".join(unicodedata.normalize("NFC", word).lower().split())
    return f"<{word if word == as_read else adapter_name(word)}>"


def list_tokens(
    words: Iterable[str], bundled: Mapping[str, Mapping[str, str]], loras: Sequence[Lora]
) -> dict[str, str]:
    """Word -> what it is in the tokenizers: all that a job with these LoRAs may use.

    Args:
        words: that every job may use.
        bundled: LoRA -> its own words, of which those of the last one count.
    """
    found = {word: word_token(word) for word in words}
    for lora in loras:
        found |= bundled.get(lora.name, {})
    return found


def replace_words(text: str, tokens: Mapping[str, str]) -> str:
    """The text with each of these words, where it stands alone, as what it is in the tokenizers.

    In upper case or lower case, and as ComfyUI writes them: `embedding:word`, `embedding:word.safetensors`.

    Args:
        tokens: by word.
    """
    words = frozenset(tokens)

    def replace(found: re.Match[str]) -> str:
        word = _find_word(found, words)
        return found[0] if word is None else tokens[word]

    return _pattern(words).sub(replace, text) if words else text


def list_words(text: str, words: Collection[str]) -> list[str]:
    """Those of these words that stand alone in the text, each once."""
    known = frozenset(words)
    found = [_find_word(one, known) for one in _pattern(known).finditer(text)] if known else []
    return list(dict.fromkeys(word for word in found if word is not None))


def escape_words(text: str, words: Collection[str]) -> str:
    """The text in which a word's own brackets are letters, and no syntax of prompts."""
    bracketed = [word for word in words if re.search(r"[()\[\]]", word)]
    if not bracketed:
        return text
    pattern = "|".join(re.escape(word) for word in sorted(bracketed, key=len, reverse=True))
    return re.sub(pattern, lambda found: re.sub(r"[\\()\[\]]", r"\\\g<0>", found[0]), text, flags=re.IGNORECASE)


def learn_word(pipeline: Any, token: str, weights: Mapping[str, Tensor | None]) -> str:
    """Teach the pipeline's text encoders this token; what of the weights has no effect, if anything.

    Raises:
        ValueError: they are for other text encoders, or none of an embedding; says what they are.
    """
    vectors = {name: tensor for name, tensor in weights.items() if tensor is not None}
    parts = _choose(pipeline, vectors, list(weights))
    for suffix, name in parts.items():
        encoder, width = getattr(pipeline, f"text_encoder{suffix}"), vectors[name].shape[-1]
        if width != encoder.config.hidden_size:
            whose = f", as {_WIDTHS[width]} do" if width in _WIDTHS else ""
            raise ValueError(
                f"it is for other text encoders: its vectors have {width} numbers{whose}, "
                f"and this model's {encoder.config.hidden_size}"
            )
        if problem := find_bad_number(vectors[name]):
            raise ValueError(f"it holds {problem}")
    for suffix, name in parts.items():
        pipeline.load_textual_inversion(
            {token: vectors[name]},
            token=token,
            tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
            text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
        )
    rest = sorted(weights.keys() - parts.values())
    return f"has {len(rest)} tensors without effect, such as {ascii(rest[0])[:60]}" if rest else ""


def _find_word(found: re.Match[str], words: frozenset[str]) -> str | None:
    came = found[1] or found[2]
    return came if came in words else _spellings(words).get(came.casefold())


@cache
def _spellings(words: frozenset[str]) -> dict[str, str]:
    return {word.casefold(): word for word in sorted(words)}


@cache
def _pattern(words: frozenset[str]) -> re.Pattern[str]:
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    named = rf"embedding:({longest_first})(?:\.safetensors|\.pt)?"
    return re.compile(rf"(?<![\w<])(?:{named}|({longest_first}))(?![\w>])", re.IGNORECASE)


def _choose(pipeline: Any, vectors: Mapping[str, Tensor], names: list[str]) -> dict[str, str]:
    """Text encoder, by its suffix -> the name of its vectors."""
    if not vectors:
        kind = "it seems to be a LoRA, which LORA_DIR takes" if any(split_key(name)[1] for name in names) else ""
        raise ValueError(kind or f"it holds no vectors of an embedding, of which one may have {MAX_VECTORS}")
    named = {suffix: next((n for n in known if n in vectors), None) for suffix, known in _NAMES.items()}
    if hasattr(pipeline, "text_encoder_2"):
        found = {suffix: name for suffix, name in named.items() if name is not None}
        if len(found) < len(named):
            came = ", ".join(ascii(name)[:40] for name in list(vectors)[:3])
            raise ValueError(f"it is for other text encoders: it has {came}, and this model needs clip_l and clip_g")
        return found
    if named["_2"] is not None:
        raise ValueError("it is for other text encoders: Stable Diffusion XL's two, and this model has one")
    if any(split_key(name)[1] for name in names):
        raise ValueError("it seems to be a LoRA, which LORA_DIR takes")
    if len(vectors) > 1 and named[""] is None:
        raise ValueError(f"it holds {len(vectors)} embeddings; a file should hold one")
    return {"": named[""] or next(iter(vectors))}
