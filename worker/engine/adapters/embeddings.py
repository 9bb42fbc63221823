"""Words of textual inversion: taught to the text encoders at start, put into prompts as the tokenizers know them."""

import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from worker.engine.pipelines import reads_clip
from worker.errors import SettingsError
from worker.models.adapters import AdapterCatalogue

log = logging.getLogger("worker")


def load_words(catalogue: AdapterCatalogue, pipeline: Any) -> frozenset[str]:
    """Teach the text encoders the words of textual inversion; a file for other encoders is left out with a warning.

    Returns:
        the words that prompts may use. In the tokenizers each is written as `word_token` has it.

    Raises:
        SettingsError: the model has no text encoder that could learn any.
    """
    if catalogue.embeddings and not reads_clip(type(pipeline)):
        raise SettingsError(f"EMBEDDINGS_DIR: {type(pipeline).__name__} takes no textual inversion")
    return frozenset(word for word, file in catalogue.embeddings.items() if _load_word(pipeline, word, Path(file)))


def word_token(word: str) -> str:
    """A word of textual inversion as the tokenizers know it, which no ordinary text contains."""
    return f"<{word}>"


def replace_words(text: str, words: frozenset[str]) -> str:
    """The text with each of these words, where it stands alone, as the tokenizers know it.

    In upper case or lower case, and as ComfyUI writes them: `embedding:word`, `embedding:word.safetensors`.
    """
    if not words:
        return text

    def replace(found: re.Match[str]) -> str:
        came = found[1] or found[2]
        word = came if came in words else _spellings(words).get(came.casefold())
        return found[0] if word is None else word_token(word)

    return _pattern(words).sub(replace, text)


@cache
def _spellings(words: frozenset[str]) -> dict[str, str]:
    return {word.casefold(): word for word in sorted(words)}


@cache
def _pattern(words: frozenset[str]) -> re.Pattern[str]:
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    named = rf"embedding:({longest_first})(?:\.safetensors|\.pt)?"
    return re.compile(rf"(?<![\w<])(?:{named}|({longest_first}))(?![\w>])", re.IGNORECASE)


def escape_words(text: str, words: frozenset[str]) -> str:
    """The text in which a word's own brackets are letters, and no syntax of prompts."""
    bracketed = [word for word in words if re.search(r"[()\[\]]", word)]
    if not bracketed:
        return text
    pattern = "|".join(re.escape(word) for word in sorted(bracketed, key=len, reverse=True))
    return re.sub(pattern, lambda found: re.sub(r"[\\()\[\]]", r"\\\g<0>", found[0]), text, flags=re.IGNORECASE)


def _load_word(pipeline: Any, word: str, file: Path) -> bool:
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
            {word_token(word): vectors}, token=word_token(word), tokenizer=tokenizer, text_encoder=encoder
        )
    return True
