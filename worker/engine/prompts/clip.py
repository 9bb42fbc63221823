"""Text -> embeddings by CLIP's text encoders, for UNets that attend to their hidden states.

What fits CLIP's window and carries no weights is encoded exactly as diffusers does it. Weights, and texts beyond the
window (in parts of one window each, joined), are compel's work; so is leaving out the last layers of Stable Diffusion
1's and 2's CLIP, of which diffusers fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from compel import Compel
from compel.prompt_parser import Conjunction, FlattenedPrompt
from torch import Tensor

from worker.engine.cache import TensorCache
from worker.engine.prompts.weighting import is_weighted, parse_weights

MAX_WINDOWS = 32  # of CLIP's 75 tokens; English prompts of the greatest length have some 16


@dataclass(frozen=True)
class Encoded:
    """What a text encoder makes of a text.

    Attributes:
        features: (1, tokens, width); tokens are a multiple of the encoder's window.
        pooled: (1, width), the whole text in one vector, of its first window and without weights; None where the
            encoder makes none.
    """

    features: Tensor
    pooled: Tensor | None


class ClipEncoder:
    """One text encoder of a pipeline and its tokenizer; each text is tokenized and encoded once."""

    def __init__(self, pipeline: Any, suffix: str, knows_words: bool, kept: TensorCache) -> None:
        """Around the pipeline's modules; nothing is encoded yet.

        Args:
            suffix: of the modules' names: none, or _2.
            knows_words: whether there is textual inversion, of which one word may be several tokens.
            kept: what the pipeline's encoders made of texts before.
        """
        self._pipeline = pipeline
        self._suffix = suffix
        self._kept = kept
        self._tokenizer = getattr(pipeline, f"tokenizer{suffix}")
        self._encoder = getattr(pipeline, f"text_encoder{suffix}")
        self._knows_words = knows_words
        self._penultimate = is_xl(pipeline)
        self._pools = hasattr(self._encoder, "text_projection")
        self._tokens: dict[str, list[int]] = {}
        self.window = int(self._tokenizer.model_max_length)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of the text without its weights, its ends included, however many."""
        if text not in self._tokens:
            plain = "".join(part.text for part in parse_weights(self._expand_words(text)))
            self._tokens[text] = list(self._tokenizer(plain).input_ids)
        return self._tokens[text]

    def encode(self, text: str, skip: int = 0) -> Encoded:
        """The text's features and its pooled vector.

        Args:
            skip: layers to leave out, beside those that the model always leaves out.
        """
        return self._kept.recall((self._suffix, text, skip), lambda: self._encode(text, skip))

    def pad(self, features: Tensor, tokens: int) -> Tensor:
        """The features with empty windows at their end, so that they are of so many tokens."""
        missing = (tokens - features.shape[1]) // self.window
        return torch.cat([features, *[self.encode("").features] * missing], dim=1) if missing else features

    def _encode(self, text: str, skip: int) -> Encoded:
        tokens = self.tokenize(text)
        fits = not is_weighted(text) and len(tokens) <= self.window
        if fits and not (skip and not self._penultimate):
            output = self._run(tokens)
            hidden = output.hidden_states[-(skip + 2)] if self._penultimate else output[0]
            return Encoded(hidden, output[0] if self._pools else None)
        layers = _LayerReader(self._encoder, self._device, self._penultimate, skip)
        compel = Compel(self._tokenizer, layers, truncate_long_prompts=False, device=self._device)
        parts = [(part.text, part.weight) for part in parse_weights(self._expand_words(text))]
        features = compel.build_conditioning_tensor_for_conjunction(Conjunction([FlattenedPrompt(parts)]))[0]
        return Encoded(features, self._run(tokens)[0] if self._pools else None)

    def _run(self, tokens: list[int]) -> Any:
        """The encoder's output for the first window of the tokens, filled up as the tokenizer does it."""
        kept = tokens if len(tokens) <= self.window else [*tokens[: self.window - 1], tokens[-1]]
        missing = self.window - len(kept)
        ids = torch.tensor([kept + [self._tokenizer.pad_token_id] * missing], device=self._device)
        mask = None
        if getattr(self._encoder.config, "use_attention_mask", False):
            mask = torch.tensor([[1] * len(kept) + [0] * missing], device=self._device)
        return self._encoder(ids, attention_mask=mask, output_hidden_states=self._penultimate)

    @property
    def _device(self) -> torch.device:
        return self._pipeline._execution_device  # type: ignore[no-any-return]

    def _expand_words(self, text: str) -> str:
        """The text with every word of textual inversion written out as its tokens."""
        return str(self._pipeline.maybe_convert_prompt(text, self._tokenizer)) if self._knows_words else text


class _LayerReader:
    """What compel takes for a text encoder: token ids -> the features of the layer that is wanted."""

    def __init__(self, encoder: Any, device: torch.device, penultimate: bool, skip: int) -> None:
        self.device = device
        self.dtype = encoder.dtype
        self._encoder = encoder
        self._penultimate = penultimate
        self._skip = skip

    def __call__(self, ids: Tensor, mask: Tensor | None = None, **_: Any) -> SimpleNamespace:
        output = self._encoder(ids, attention_mask=mask, output_hidden_states=True)
        hidden = output.hidden_states[-(self._skip + (2 if self._penultimate else 1))]
        return SimpleNamespace(
            last_hidden_state=hidden if self._penultimate else self._encoder.final_layer_norm(hidden)
        )


def embed_with_clip(
    encoders: Sequence[ClipEncoder], pipeline: Any, prompt: str, negative: str | None, skip: int, guided: bool
) -> dict[str, Tensor]:
    """The embeddings that the pipeline takes in place of text.

    Args:
        encoders: of the pipeline, in its order.
        skip: layers to leave out for the prompt alone, as in diffusers.
        guided: whether the pipeline compares with the negative prompt.
    """
    wanted = [encoder.encode(prompt, skip) for encoder in encoders]
    if not guided:
        return _name(pipeline, "", encoders, wanted)
    if is_xl(pipeline) and negative is None and pipeline.config.get("force_zeros_for_empty_prompt"):
        found = _name(pipeline, "", encoders, wanted)
        return found | {f"negative_{name}": torch.zeros_like(value) for name, value in found.items()}
    unwanted = [encoder.encode(negative or "") for encoder in encoders]
    tokens = max(one.features.shape[1] for one in (*wanted, *unwanted))
    return _name(pipeline, "", encoders, wanted, tokens) | _name(pipeline, "negative_", encoders, unwanted, tokens)


def _name(
    pipeline: Any, prefix: str, encoders: Sequence[ClipEncoder], encoded: Sequence[Encoded], tokens: int = 0
) -> dict[str, Tensor]:
    """The encoders' features side by side, of at least so many tokens, and the last one's pooled vector."""
    length = max([tokens, *(one.features.shape[1] for one in encoded)])
    features = [encoder.pad(one.features, length) for encoder, one in zip(encoders, encoded, strict=True)]
    found = {f"{prefix}prompt_embeds": torch.cat(features, dim=-1)}
    if is_xl(pipeline) and (pooled := encoded[-1].pooled) is not None:
        found[f"{prefix}pooled_prompt_embeds"] = pooled
    return found


def is_xl(pipeline: Any) -> bool:
    """Whether the pipeline is a Stable Diffusion XL: two text encoders, the last but one layer, a pooled vector."""
    return hasattr(pipeline, "text_encoder_2")
