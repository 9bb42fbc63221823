"""What of the prompts a model cannot use: weights, embeddings for others, what is beyond its text encoders' window."""

from collections.abc import Iterator
from typing import Any

from transformers import CLIPTokenizer

from worker.engine.adapters.embeddings import list_words
from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments
from worker.engine.prompts.weighting import is_weighted
from worker.request import Request


def list_prompt_warnings(engine: Engine, request: Request) -> list[str]:
    """What the caller is told of the request's prompts."""
    texts = dict.fromkeys([*(picture.prompt for picture in request.pictures), request.negative_prompt or ""])
    words = [word for text in texts for word in list_words(text, engine.word_notes)]
    notes = [f"prompt: the embedding {word} {engine.word_notes[word]}" for word in dict.fromkeys(words)]
    if engine.capabilities.weighted_prompts:
        return notes  # such models read all of it
    title = engine.capabilities.family.title
    for text in texts:
        if is_weighted(text):
            notes.append(f"prompt: {title} takes no weights; (word:1.3) was read as plain text")
        if lost := _count_lost_tokens(engine.pipeline, text):
            notes.append(f"prompt: the last {lost} tokens are beyond what {title} reads, and had no effect")
    return list(dict.fromkeys(notes))


def _count_lost_tokens(pipeline: Any, text: str) -> int:
    """How many tokens of the text no text encoder has room for."""
    counts = (len(one(text).input_ids) - _room(one, pipeline) for one in _tokenizers(pipeline))
    return max(0, min(counts, default=0))


def _room(tokenizer: Any, pipeline: Any) -> int:
    """The most tokens that are read, the ends included."""
    limit = call_arguments(type(pipeline)).get("max_sequence_length")
    return limit if isinstance(limit, int) and not isinstance(tokenizer, CLIPTokenizer) else tokenizer.model_max_length


def _tokenizers(pipeline: Any) -> Iterator[Any]:
    for name, part in pipeline.components.items():
        encoder = name.replace("tokenizer", "text_encoder")
        if name.startswith("tokenizer") and part is not None and pipeline.components.get(encoder) is not None:
            yield part
