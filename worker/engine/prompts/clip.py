"""Text -> embeddings by CLIP's text encoders, for UNets that attend to their hidden states.

What fits CLIP's window and carries no weights is encoded exactly as diffusers does it. Weights and longer texts follow
AUTOMATIC1111's web UI: the features of each token are multiplied by its weight and those of its window by what brings
their mean back; windows are encoded one by one and joined.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engine.adapters.embeddings import replace_words
from worker.engine.cache import TensorCache
from worker.engine.prompts.weighting import MAX_WEIGHT, Sections
from worker.engine.prompts.windows import Token, Window, fill_windows

_MIN_MEAN = 1e-6  # of features, as a share of their size; a smaller one is what rounding has left
MAX_WINDOWS = 32  # of CLIP's 75 tokens; English prompts of the greatest length have some 16


@dataclass(frozen=True)
class Encoded:
    """What a text encoder makes of a text.

    Attributes:
        features: (1, tokens, width); tokens are a multiple of the encoder's window.
        pooled: (1, width), the first window in one vector, without weights; None where the encoder makes none.
    """

    features: Tensor
    pooled: Tensor | None


class ClipEncoder:
    """One text encoder of a pipeline and its tokenizer; each text is tokenized and encoded once."""

    def __init__(
        self,
        pipeline: Any,
        suffix: str,
        words: Mapping[str, str],
        read_text: Callable[[str], Sections],
        kept: TensorCache,
    ) -> None:
        """Around the pipeline's modules; nothing is encoded yet.

        Args:
            suffix: of the modules' names: none, or _2.
            words: of textual inversion -> what each is in the tokenizers.
            read_text: text -> what it says, and how much each part counts.
            kept: what text encoders made of windows before.
        """
        self._pipeline = pipeline
        self._kept = kept
        self._tokenizer = getattr(pipeline, f"tokenizer{suffix}")
        self._encoder = getattr(pipeline, f"text_encoder{suffix}")
        self._words = words
        self._read_text = read_text
        self._penultimate = is_xl(pipeline)
        self._pools = hasattr(self._encoder, "text_projection")
        known = self._tokenizer.get_added_vocab() if words else {}
        # What stands for a word's vectors beyond the first.
        self._rests = {number for token, number in known.items() if re.fullmatch(r"<.*>_\d+", token, re.DOTALL)}
        self._windows: dict[str, tuple[Window, ...]] = {}
        self._window_length = int(self._tokenizer.model_max_length)

    def windows(self, text: str) -> tuple[Window, ...]:
        """The windows that the text fills, however many."""
        if text not in self._windows:
            comma = self._tokenizer.convert_tokens_to_ids(",</w>")
            self._windows[text] = tuple(fill_windows(self._tokenize(text), self._window_length - 2, comma))
        return self._windows[text]

    def encode(self, text: str, skip: int = 0) -> Encoded:
        """The text's features and its pooled vector.

        Args:
            skip: layers to leave out, beside those that the model always leaves out.
        """
        windows = self.windows(text)
        return self._kept.recall((id(self._encoder), windows, skip), lambda: self._encode(windows, skip))

    def pad(self, features: Tensor, windows: int) -> Tensor:
        """The features with empty windows at their end, so that they are of so many."""
        missing = windows - features.shape[1] // self._window_length
        return torch.cat([features, *[self.encode("").features] * missing], dim=1) if missing > 0 else features

    def _tokenize(self, text: str) -> list[list[Token]]:
        """The tokens of the text, between its BREAKs."""
        sections = self._read_text(text)
        fragments = [fragment for section in sections for fragment in section]
        texts = [self._expand_words(fragment.text) for fragment in fragments]
        found = iter(self._tokenizer(texts or [""], add_special_tokens=False).input_ids)
        weights = [[max(-MAX_WEIGHT, min(one.weight, MAX_WEIGHT)) for one in section] for section in sections]
        return [[Token(ids, weight) for weight in row for ids in self._group(next(found))] for row in weights]

    def _expand_words(self, text: str) -> str:
        """The text with every word of textual inversion written out as its tokens."""
        spelled = replace_words(text, self._words)
        if not self._words or "<" not in spelled:
            return spelled
        return str(self._pipeline.maybe_convert_prompt(spelled, self._tokenizer))

    def _group(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The tokens, those of one word of textual inversion in one."""
        groups: list[tuple[int, ...]] = []
        for one in ids:
            if one in self._rests and groups:
                groups[-1] += (one,)
            else:
                groups.append((one,))
        return groups

    def _encode(self, windows: Sequence[Window], skip: int) -> Encoded:
        output = self._run(windows, hidden=self._penultimate or skip > 0)
        features = self._read_layer(output, skip)
        if any(weight != 1 for window in windows for weight in window.weights):
            features = _weigh(features, self._pad_weights(windows))
        return Encoded(features.flatten(0, 1).unsqueeze(0), output[0][:1] if self._pools else None)

    def _run(self, windows: Sequence[Window], hidden: bool) -> Any:
        """The encoder's output for the windows, filled up as the tokenizer does it."""
        start, end, empty = (getattr(self._tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        rows = [[start, *window.ids, end] for window in windows]
        missing = [self._window_length - len(row) for row in rows]
        ids = [row + [empty] * count for row, count in zip(rows, missing, strict=True)]
        mask = None
        if getattr(self._encoder.config, "use_attention_mask", False):
            marks = [[1] * len(row) + [0] * count for row, count in zip(rows, missing, strict=True)]
            mask = torch.tensor(marks, device=self._device)
        return self._encoder(torch.tensor(ids, device=self._device), attention_mask=mask, output_hidden_states=hidden)

    def _read_layer(self, output: Any, skip: int) -> Tensor:
        """(windows, tokens, width) of the layer that is wanted."""
        layer: Tensor = output[0]
        if self._penultimate:
            layer = output.hidden_states[-(skip + 2)]
        elif skip:  # where diffusers 0.42 fails
            layer = self._encoder.final_layer_norm(output.hidden_states[-(skip + 1)])
        return layer

    def _pad_weights(self, windows: Sequence[Window]) -> Tensor:
        """(windows, tokens), their ends and what fills them up of weight 1."""
        weights = torch.ones(len(windows), self._window_length, device=self._device)
        for row, window in zip(weights, windows, strict=True):
            row[1 : len(window.weights) + 1] = torch.tensor(window.weights)
        return weights

    @property
    def _device(self) -> torch.device:
        return self._pipeline._execution_device  # type: ignore[no-any-return]


def _weigh(features: Tensor, weights: Tensor) -> Tensor:
    """The features times the weights, with the mean that they had.

    Args:
        features: (windows, tokens, width).
        weights: (windows, tokens).
    """
    given = features.float()
    weighed = given * weights.unsqueeze(-1)
    before, after = given.mean((1, 2), keepdim=True), weighed.mean((1, 2), keepdim=True)
    restored = weighed * (before / after)
    least = _MIN_MEAN * given.square().mean((1, 2), keepdim=True).sqrt()
    largest = restored.abs().amax((1, 2), keepdim=True)
    fits = (before.abs() > least) & (after.abs() > least) & (largest <= torch.finfo(features.dtype).max)
    return torch.where(fits, restored, weighed).to(features.dtype)


def embed_with_clip(
    encoders: Sequence[ClipEncoder],
    pipeline: Any,
    prompt: str,
    negative: str | None,
    skip: int,
    guided: bool,
    windows: int = 1,
) -> dict[str, Tensor]:
    """The embeddings that the pipeline takes in place of text.

    Args:
        encoders: of the pipeline, in its order.
        skip: layers to leave out for the prompt alone, as in diffusers.
        guided: whether the pipeline compares with the negative prompt.
        windows: that the embeddings have at least.
    """
    texts = [prompt, negative or ""] if guided else [prompt]
    windows = max([windows, *(len(encoder.windows(text)) for encoder in encoders for text in texts)])
    wanted = _name(pipeline, "", encoders, [encoder.encode(prompt, skip) for encoder in encoders], windows)
    if not guided:
        return wanted
    if is_xl(pipeline) and negative is None and pipeline.config.get("force_zeros_for_empty_prompt"):
        return wanted | {f"negative_{name}": torch.zeros_like(value) for name, value in wanted.items()}
    unwanted = [encoder.encode(negative or "") for encoder in encoders]
    return wanted | _name(pipeline, "negative_", encoders, unwanted, windows)


def _name(
    pipeline: Any, prefix: str, encoders: Sequence[ClipEncoder], encoded: Sequence[Encoded], windows: int
) -> dict[str, Tensor]:
    """The encoders' features side by side, of so many windows, and the last one's pooled vector."""
    features = [encoder.pad(one.features, windows) for encoder, one in zip(encoders, encoded, strict=True)]
    found = {f"{prefix}prompt_embeds": torch.cat(features, dim=-1)}
    if is_xl(pipeline) and (pooled := encoded[-1].pooled) is not None:
        found[f"{prefix}pooled_prompt_embeds"] = pooled
    return found


def is_xl(pipeline: Any) -> bool:
    """Whether the pipeline is a Stable Diffusion XL: two text encoders, the last but one layer, a pooled vector."""
    return hasattr(pipeline, "text_encoder_2")
