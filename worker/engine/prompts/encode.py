"""Prompts -> what the denoiser attends to.

A prompt that fits the text encoder and carries no weights goes to the pipeline as text, and diffusers encodes it. What
diffusers cannot do, for models whose UNet attends to CLIP, is done here: weights, prompts beyond CLIP's window (in
parts of one window each, joined; both by compel), and leaving out the last layers of Stable Diffusion 1's and 2's CLIP.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from compel import Compel
from compel.prompt_parser import Conjunction, FlattenedPrompt
from torch import Tensor
from transformers import CLIPTokenizer

from worker.engine.adapters.embeddings import replace_words
from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments
from worker.engine.prompts.weighting import is_weighted, parse_weights
from worker.errors import InvalidInputError
from worker.request import Request

MAX_WINDOWS = 32  # of CLIP's 75 tokens; English prompts of the greatest length have some 16


def text_arguments(pipeline: Any, engine: Engine, prompt: str, request: Request) -> dict[str, Any]:
    """The arguments that tell the pipeline what to draw and what not.

    Args:
        pipeline: the engine's, or another around its modules.
    """
    model = engine.capabilities
    prompt = replace_words(prompt, engine.words)
    negative = None
    if request.negative_prompt is not None and model.family.negative_prompt:
        negative = replace_words(request.negative_prompt, engine.words)
    elif model.family.guidance == "true_cfg_scale":
        negative = " "  # such pipelines are guided only away from one
    accepted = call_arguments(type(pipeline))
    if model.weighted_prompts and _needs_help(pipeline, [prompt, negative or ""], request.clip_skip):
        arguments: dict[str, Any] = _embedded(pipeline, prompt, negative, request.clip_skip)
    else:
        # Each pipeline has its own idea of no negative prompt.
        arguments = {"prompt": prompt, "negative_prompt": negative, "clip_skip": request.clip_skip}
    return {name: value for name, value in arguments.items() if name in accepted and value is not None}


def _needs_help(pipeline: Any, texts: list[str], clip_skip: int | None) -> bool:
    """Whether this is beyond what diffusers does with text; its Stable Diffusion 1 and 2 fail at clip_skip."""
    skips_here = clip_skip is not None and not _is_xl(pipeline)
    return skips_here or any(is_weighted(text) or _beyond(pipeline, text) > 0 for text in texts)


def _is_xl(pipeline: Any) -> bool:
    return hasattr(pipeline, "text_encoder_2")


def check_prompt_lengths(engine: Engine, request: Request) -> None:
    """Refuse prompts of so many tokens that encoding them would take longer than drawing.

    Raises:
        InvalidInputError: names the prompt.
    """
    if not engine.capabilities.weighted_prompts:
        return  # the rest is cut off
    prompts = [("prompt", text) for text in dict.fromkeys(picture.prompt for picture in request.pictures)]
    for field, text in [*prompts, ("negative_prompt", request.negative_prompt or "")]:
        plain = replace_words("".join(part.text for part in parse_weights(text)), engine.words)
        for tokenizer in _tokenizers(engine.pipeline):
            tokens = _length(tokenizer, plain, engine.pipeline)
            if tokens > MAX_WINDOWS * tokenizer.model_max_length:
                most = MAX_WINDOWS * (tokenizer.model_max_length - 2)
                raise InvalidInputError([f"{field}: got a text of {tokens} tokens; at most {most}"])


def prompt_notes(engine: Engine, request: Request) -> list[str]:
    """What of the prompts this model cannot use, for the caller."""
    model, pipeline = engine.capabilities, engine.pipeline
    if model.weighted_prompts:
        return []
    notes = []
    for text in dict.fromkeys([*(picture.prompt for picture in request.pictures), request.negative_prompt or ""]):
        if is_weighted(text):
            notes.append(f"prompt: {model.family.title} takes no weights; (word:1.3) was read as plain text")
        if lost := _beyond(pipeline, text):
            notes.append(
                f"prompt: the last {lost} tokens are beyond what {model.family.title} reads, and had no effect"
            )
    return list(dict.fromkeys(notes))


def _beyond(pipeline: Any, text: str) -> int:
    """How many tokens of the text no text encoder has room for."""
    return min((_excess(tokenizer, text, pipeline) for tokenizer in _tokenizers(pipeline)), default=0)


def _tokenizers(pipeline: Any) -> Iterator[Any]:
    for name, part in pipeline.components.items():
        encoder = name.replace("tokenizer", "text_encoder")
        if name.startswith("tokenizer") and part is not None and pipeline.components.get(encoder) is not None:
            yield part


def _excess(tokenizer: Any, text: str, pipeline: Any) -> int:
    room = tokenizer.model_max_length
    if not isinstance(tokenizer, CLIPTokenizer):
        limit = call_arguments(type(pipeline)).get("max_sequence_length")
        room = limit if isinstance(limit, int) else room
    return max(0, _length(tokenizer, text, pipeline) - int(room))


def _length(tokenizer: Any, text: str, pipeline: Any) -> int:
    """Of the text in tokens, its ends included."""
    if hasattr(pipeline, "maybe_convert_prompt"):  # a word of textual inversion is as many tokens as it has vectors
        text = pipeline.maybe_convert_prompt(text, tokenizer)
    return len(tokenizer(text).input_ids)


@torch.no_grad()
def _embedded(pipeline: Any, prompt: str, negative: str | None, clip_skip: int | None) -> dict[str, Tensor]:
    """The embeddings that the pipeline takes in place of text."""
    encoders = [_Encoder(pipeline, suffix) for suffix in ("", "_2") if getattr(pipeline, f"text_encoder{suffix}", None)]
    # As in diffusers: layers are left out for the prompt alone, and Stable Diffusion XL's idea of none is zeros.
    embeds = [encoder.embed(prompt, clip_skip or 0) for encoder in encoders]
    without = [encoder.embed(negative or "") for encoder in encoders]
    windows = max(part.shape[1] for part in (*embeds, *without))
    found = {
        "prompt_embeds": _joined(encoders, embeds, windows),
        "negative_prompt_embeds": _joined(encoders, without, windows),
    }
    if _is_xl(pipeline):
        found["pooled_prompt_embeds"] = encoders[-1].pooled(prompt)
        found["negative_pooled_prompt_embeds"] = encoders[-1].pooled(negative or "")
        if negative is None and pipeline.config.get("force_zeros_for_empty_prompt"):
            for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
                found[name] = torch.zeros_like(found[name])
    return found


def _joined(encoders: list["_Encoder"], parts: list[Tensor], length: int) -> Tensor:
    """One tensor of this many tokens, the encoders' features side by side."""
    return torch.cat([encoder.padded(part, length) for encoder, part in zip(encoders, parts, strict=True)], dim=-1)


class _Encoder:
    """One text encoder of a pipeline, as compel wants it: it takes token ids and returns the layer that is wanted."""

    def __init__(self, pipeline: Any, suffix: str) -> None:
        self._pipeline = pipeline
        self._tokenizer = getattr(pipeline, f"tokenizer{suffix}")
        self._encoder = getattr(pipeline, f"text_encoder{suffix}")
        self._xl = _is_xl(pipeline)
        self._skip = 0
        self.device = pipeline._execution_device
        self.dtype = self._encoder.dtype
        self._compel = Compel(self._tokenizer, self, truncate_long_prompts=False, device=self.device)

    def __call__(self, ids: Tensor, mask: Tensor | None = None, **_: Any) -> SimpleNamespace:
        output = self._encoder(ids, attention_mask=mask, output_hidden_states=True)
        hidden = output.hidden_states[-(self._skip + (2 if self._xl else 1))]
        return SimpleNamespace(last_hidden_state=hidden if self._xl else self._encoder.final_layer_norm(hidden))

    def embed(self, text: str, skip: int = 0) -> Tensor:
        """(1, tokens, features); tokens are a multiple of the encoder's window."""
        self._skip = skip
        parts = FlattenedPrompt([(part.text, part.weight) for part in parse_weights(self._known(text))])
        embeds: Tensor = self._compel.build_conditioning_tensor_for_conjunction(Conjunction([parts]))[0]
        return embeds

    def padded(self, embeds: Tensor, length: int) -> Tensor:
        """With empty windows at its end."""
        missing = (length - embeds.shape[1]) // self._tokenizer.model_max_length
        return torch.cat([embeds, *[self.embed("")] * missing], dim=1) if missing else embeds

    def pooled(self, text: str) -> Tensor:
        """(1, features): the whole prompt in one vector, of its first window and without weights."""
        plain = "".join(part.text for part in parse_weights(self._known(text)))
        ids = self._tokenizer(
            plain,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        vector: Tensor = self._encoder(ids.to(self.device)).text_embeds
        return vector

    def _known(self, text: str) -> str:
        """The text with every word of textual inversion written out as its tokens."""
        return str(self._pipeline.maybe_convert_prompt(text, self._tokenizer))
