"""Prompts -> embeddings, as values: what the denoiser attends to, made once a job for all its pictures and passes.

Models whose UNet attends to CLIP are encoded here, weights and prompts beyond CLIP's window included. Stable Diffusion
3 and FLUX are encoded by diffusers' own `encode_prompt`. Of other families nothing says how the results of their
`encode_prompt` are called as arguments; they take the text itself, and their pipelines encode it in every pass.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from worker.engine.adapters.embeddings import replace_bundled_words, replace_words
from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments
from worker.engine.prompts.clip import MAX_WINDOWS, ClipEncoder, embed_with_clip
from worker.errors import InvalidInputError
from worker.request import Request

Embeddings = Mapping[str, Any]  # arguments of a pipeline's call

# Text-to-image pipeline -> what its `encode_prompt` returns, in the words of its call.
_RETURNS = {
    "StableDiffusion3Pipeline": (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds"),
}


class PromptEncoder:
    """The prompts of one job, each encoded when its first picture asks for it, and kept for its other pictures."""

    def __init__(self, engine: Engine, request: Request) -> None:
        """Nothing is encoded yet. What the request attaches to the text encoders must be there when it is."""
        self._engine = engine
        self._request = request
        self._knows_words = bool(engine.words or engine.bundled_words)
        self._by_clip = engine.capabilities.weighted_prompts
        self._encoders: dict[int, ClipEncoder] = {}  # by the module's id
        self._latest: dict[bool, tuple[str, Embeddings]] = {}  # whether for the refiner -> prompt and its embeddings

    def encode(self, pipeline: Any, prompt: str) -> Embeddings:
        """What tells a pipeline what to draw and what not, for one picture.

        Args:
            pipeline: the engine's, its refiner, or another around their modules.
        """
        refines = pipeline is self._engine.refiner  # which lacks one of the text encoders
        if self._latest.get(refines, (None, {}))[0] != prompt:  # pictures come prompt by prompt
            self._latest[refines] = prompt, self._embed(pipeline, self._spell(prompt))
        return self._latest[refines][1]

    def check_lengths(self) -> None:
        """Refuse prompts of so many tokens that encoding them would take longer than drawing.

        Raises:
            InvalidInputError: names the field, what came and what is allowed.
        """
        if not self._by_clip:
            return  # the rest is cut off
        texts = [("prompt", text) for text in dict.fromkeys(one.prompt for one in self._request.pictures)]
        if negative := self._request.negative_prompt:
            texts.append(("negative_prompt", negative))
        for encoder in self._encoders_of(self._engine.pipeline):
            for field, text in texts:
                count, window = len(encoder.tokenize(self._spell(text))), encoder.window
                if count > MAX_WINDOWS * window:
                    allowed = MAX_WINDOWS * (window - 2)
                    raise InvalidInputError([f"{field}: got a text of {count} tokens; at most {allowed}"])

    def batch_shape(self, prompt: str) -> Hashable:
        """Equal for prompts whose embeddings can be joined: of one length, and with a negative one or without."""
        negative = self._negative_prompt()
        texts = [self._spell(prompt)] if self._by_clip else []
        if self._by_clip and self._guided:
            texts.append(negative or "")
        windows = [
            -(-(len(encoder.tokenize(text)) - 2) // (encoder.window - 2))
            for encoder in self._encoders_of(self._engine.pipeline)
            for text in texts
        ]
        return max([1, *windows]), negative is None

    @torch.no_grad()
    def _embed(self, pipeline: Any, prompt: str) -> Embeddings:
        request, names = self._request, _RETURNS.get(type(self._engine.pipeline).__name__)
        negative = self._negative_prompt()
        guided = self._guided
        if self._by_clip:
            return embed_with_clip(
                self._encoders_of(pipeline), pipeline, prompt, negative, request.clip_skip or 0, guided
            )
        if names is None:
            # Each pipeline has its own idea of no negative prompt.
            texts = {"prompt": prompt, "negative_prompt": negative, "clip_skip": request.clip_skip}
            return {name: value for name, value in texts.items() if value is not None}
        wanted = {
            "prompt": prompt,
            "prompt_2": None,
            "prompt_3": None,
            "negative_prompt": negative,
            "do_classifier_free_guidance": guided,
            "device": pipeline._execution_device,
            "clip_skip": request.clip_skip,
        }
        accepted = call_arguments(type(pipeline), "encode_prompt")
        values = pipeline.encode_prompt(**{name: value for name, value in wanted.items() if name in accepted})
        return {name: value for name, value in zip(names, values, strict=False) if value is not None}

    @property
    def _guided(self) -> bool:
        return self._request.guidance_scale > 1  # where a pipeline is not guided all the same, it ignores what it gets

    def _negative_prompt(self) -> str | None:
        family, negative = self._engine.capabilities.family, self._request.negative_prompt
        if negative is not None and family.negative_prompt:
            return self._spell(negative)
        # Such pipelines are guided only away from one.
        return " " if family.guidance == "true_cfg_scale" else None

    def _encoders_of(self, pipeline: Any) -> list[ClipEncoder]:
        """The pipeline's text encoders; those that pipelines share are one."""
        found = []
        for suffix in ("", "_2"):
            module = getattr(pipeline, f"text_encoder{suffix}", None)
            if module is not None:
                made = self._encoders.get(id(module)) or ClipEncoder(pipeline, suffix, self._knows_words)
                found.append(self._encoders.setdefault(id(module), made))
        return found

    def _spell(self, text: str) -> str:
        for lora in self._request.loras:
            text = replace_bundled_words(text, self._engine.bundled_words.get(lora.name, {}))
        return replace_words(text, self._engine.words)


def join(found: Sequence[Embeddings], pipeline: Any) -> dict[str, Any]:
    """The arguments of this pipeline's call for a batch, from those of its pictures."""
    accepted = call_arguments(type(pipeline))
    return {name: _join([one[name] for one in found]) for name in found[0] if name in accepted}


def _join(values: Sequence[Any]) -> Any:
    """One value for the batch: tensors (pictures, ...), texts in a list, and what all share as it is."""
    if isinstance(values[0], Tensor):
        return torch.cat(list(values)) if len(values) > 1 else values[0]
    return list(values) if isinstance(values[0], str) else values[0]
