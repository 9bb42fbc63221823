"""What the caller is told of the prompts: syntax of other programs, and what the text encoders have no room for."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from transformers import CLIPTokenizer

from worker.engine.adapters.embeddings import escape_words, list_tokens, list_words, replace_words
from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments, text_tokenizer
from worker.engine.prompts.phases import can_change
from worker.engine.prompts.schedule import parse_schedule
from worker.engine.prompts.weighting import MAX_WEIGHT, find_marks, parse_weights
from worker.request import Request, remove_tags

_AND = re.compile(r"\bAND\b")
_EMBEDDING = re.compile(r"(?<!\w)embedding:([\w./-]*\w)", re.IGNORECASE)


@dataclass(frozen=True)
class _Syntax:
    """A part of AUTOMATIC1111's syntax.

    Attributes:
        needs: what a model must take for it; None where no model takes it.
        told: whether people are told that it was read, because others mean the letters.
    """

    name: str
    needs: Literal["weights", "changes"] | None
    told: bool = False


_MARKS = {
    "(": _Syntax("weights like (word) and (word:1.3)", "weights"),
    "[": _Syntax("weights like [word]", "weights", told=True),
    "BREAK": _Syntax("BREAK", "weights", told=True),
    "\\": _Syntax(r"escapes like \(", "weights"),
}
_CHANGE = _Syntax("changes by step like [from:to:when]", "changes", told=True)
_ALTERNATION = _Syntax("alternation like [a|b]", None)
_COMPOSITION = _Syntax("AND between prompts", None)


def list_prompt_warnings(engine: Engine, request: Request, check: Callable[[], None] = lambda: None) -> list[str]:
    """What the caller is told of the request's prompts; `check` is called before each of them is read."""
    notes: list[str] = []
    texts = [("prompt", picture.prompt) for picture in request.pictures]
    if request.negative_prompt != engine.capabilities.negative_prompt:  # the owner's own is no caller's
        texts.append(("negative_prompt", request.negative_prompt or ""))
    bundled = list_tokens((), engine.bundled_words, request.loras)
    for field, text in dict.fromkeys(texts):
        check()
        left_out = list_words(text, engine.word_notes.keys() - bundled.keys())
        notes += [f"{field}: the embedding {word} {engine.word_notes[word]}" for word in left_out]
        notes += [f"{field}: {note}" for note in _list_notes(engine, request, text)]
    return list(dict.fromkeys(notes))


def _list_notes(engine: Engine, request: Request, text: str) -> Iterator[str]:
    model, words = engine.capabilities, list_tokens(engine.words, engine.bundled_words, request.loras)
    if not model.plain_prompts:
        text = remove_tags(text)
        yield from _list_syntax_notes(engine, escape_words(text, words))
        named = dict.fromkeys(_EMBEDDING.findall(replace_words(text, words)))
        if missing := [word for word in named if word not in engine.word_notes]:
            yield f"there is no embedding {', '.join(missing)[:80]}; it was read as plain text"
    if not model.weighted_prompts and (lost := _count_lost_tokens(engine, request, text)):
        yield f"the last {lost} tokens are beyond what {model.family.title} reads, and had no effect"


def _list_syntax_notes(engine: Engine, text: str) -> Iterator[str]:
    model, found = engine.capabilities, list(_find_syntax(text))
    taken = {"weights": model.weighted_prompts, "changes": model.weighted_prompts and can_change(type(engine.pipeline))}
    unread = [one.name for one in found if one.needs is None or not taken[one.needs]]
    read = [one.name for one in found if one.needs is not None and taken[one.needs] and one.told]
    if unread:
        yield f"{model.family.title} takes no {', no '.join(unread)}; it was read as plain text"
    if read:
        yield f"{', '.join(read)} had the meaning that AUTOMATIC1111's web UI gives it"
    if model.weighted_prompts and any(abs(one.weight) > MAX_WEIGHT for part in parse_weights(text) for one in part):
        yield f"weights beyond {MAX_WEIGHT:g} count as {MAX_WEIGHT:g}"


def _find_syntax(text: str) -> Iterator[_Syntax]:
    scheduled = parse_schedule(text)
    for mark in find_marks(scheduled.last_text):
        yield _MARKS[mark]
    if scheduled.edits:
        yield _CHANGE
    if scheduled.letters:
        yield _ALTERNATION
    if _AND.search(text):
        yield _COMPOSITION


def _count_lost_tokens(engine: Engine, request: Request, text: str) -> int:
    """How many tokens of the text no text encoder has room for."""
    pipeline = engine.pipeline
    limit = request.max_sequence_length or call_arguments(type(pipeline)).get("max_sequence_length")
    counts = (len(one(text).input_ids) - _room(one, limit) for one in _tokenizers(pipeline))
    return max(0, min(counts, default=0))


def _room(tokenizer: Any, limit: object) -> int:
    """The most tokens that are read, the ends included.

    Args:
        limit: for encoders other than CLIP's, if there is one.
    """
    return limit if isinstance(limit, int) and not isinstance(tokenizer, CLIPTokenizer) else tokenizer.model_max_length


def _tokenizers(pipeline: Any) -> Iterator[Any]:
    for name, part in pipeline.components.items():
        encoder = name.replace("tokenizer", "text_encoder")
        if name.startswith("tokenizer") and part is not None and pipeline.components.get(encoder) is not None:
            yield text_tokenizer(part)
