"""Prompts -> embeddings, as values: what the denoiser attends to, made once for all pictures, passes and jobs.

Models whose UNet attends to CLIP are encoded here, weights, changes by step and prompts beyond CLIP's window included.
Stable Diffusion 3 and FLUX are encoded by diffusers' own `encode_prompt`. Of other families nothing says how the
results of their `encode_prompt` are called as arguments; they take the text itself, and their pipelines encode it in
every pass.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import LongCatImageEditPipeline, split_quotation

from worker.engine.adapters.embeddings import escape_words, list_tokens
from worker.engine.cache import TensorCache
from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments, text_tokenizer
from worker.engine.prompts.clip import MAX_WINDOWS, ClipEncoder, embed_with_clip
from worker.engine.prompts.phases import Embeddings, Phase, can_change
from worker.engine.prompts.schedule import ScheduledPrompt, list_pass_steps, parse_schedule
from worker.engine.prompts.weighting import parse_weights, read_plain
from worker.errors import InvalidInputError
from worker.plan import Plan
from worker.request import remove_tags

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
    """The prompts of one job, each encoded when its first picture asks for it, and kept for others and for later jobs.

    Where LoRAs act, which may act in the text encoders, too, they are kept for this job alone.
    """

    def __init__(self, engine: Engine, plan: Plan) -> None:
        """Nothing is encoded yet. What the request attaches to the text encoders must be there when it is."""
        self._engine = engine
        self._request = plan.request
        self._words = list_tokens(engine.words, engine.bundled_words, plan.request.loras)
        self._by_clip = engine.capabilities.weighted_prompts
        self._kept = TensorCache() if plan.request.loras else engine.embeddings
        self._steps = list_pass_steps(plan.passes)
        self._encoders: dict[int, ClipEncoder] = {}  # by the module's id
        self._scheduled: dict[str, ScheduledPrompt] = {}
        self._texts: dict[str, list[str]] = {}  # that a prompt is, in any pass
        self._latest: dict[bool, tuple[Hashable, Embeddings]] = {}  # whether for the refiner -> texts, and theirs

    def encode(self, pipeline: Any, prompt: str, number: int = 0) -> list[Phase]:
        """What tells a pipeline what to draw and what not, for one picture; the first phase is that of its start.

        Args:
            pipeline: the engine's, its refiner, or another around their modules.
            number: of the pass that it runs.
        """
        steps, negative = self._steps[number], self._negative_prompt()
        wanted, unwanted = self._schedule(prompt), self._schedule(negative or "")
        starts = {*wanted.changes(steps), *(unwanted.changes(steps) if self._guided else [])}
        windows, phases = self._count_windows(prompt), []
        for start in sorted(starts):
            texts = wanted.text_at(start, steps), None if negative is None else unwanted.text_at(start, steps)
            phases.append(Phase(start, self._embed(pipeline, *texts, windows)))
        return phases

    def check_lengths(self, check: Callable[[], None] = lambda: None) -> None:
        """Refuse prompts of so many tokens that encoding them would take longer than drawing.

        Args:
            check: called before each of them.

        Raises:
            InvalidInputError: names the field, what came and what is allowed.
        """
        editing = self._engine.capabilities.editing
        limit = editing.max_tokens if editing else 0
        if not (self._by_clip or limit):
            return  # the rest is cut off
        prompts = [("prompt", text) for text in dict.fromkeys(one.prompt for one in self._request.pictures)]
        if negative := self._request.negative_prompt:
            prompts.append(("negative_prompt", negative))
        for field, prompt in prompts:
            check()
            if limit:
                self._check_tokens(field, prompt, limit)
                continue
            self._check_changes(field, prompt)
            texts = self._list_texts(prompt)
            for encoder in self._encoders_of(self._engine.pipeline):
                count = sum(len(encoder.windows(text)) for text in texts)
                if count > MAX_WINDOWS:
                    came = f"a text of {count} windows" if len(texts) == 1 else f"{len(texts)} texts of {count} windows"
                    raise InvalidInputError([f"{field}: got {came} of 75 tokens; at most {MAX_WINDOWS}"])

    def batch_shape(self, prompt: str) -> Hashable:
        """Equal for prompts whose embeddings can be joined: of one length, and with a negative one or without."""
        return self._count_windows(prompt), self._negative_prompt() is None

    def _check_tokens(self, field: str, prompt: str, limit: int) -> None:
        """Refuse what the pipeline of a model that edits neither reads to its end nor cuts."""
        tokenizer = text_tokenizer(self._engine.pipeline.tokenizer)
        letters = isinstance(self._engine.pipeline, LongCatImageEditPipeline)  # which reads quotations by them
        parts = split_quotation(prompt) if letters else [(prompt, False)]
        texts = [text for part, is_quoted in parts for text in (part if is_quoted else [part])]
        count = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        if count > limit:
            title = self._engine.capabilities.family.title
            raise InvalidInputError([f"{field}: got a text of {count} tokens; {title} reads {limit} at most"])

    def _check_changes(self, field: str, prompt: str) -> None:
        scheduled = self._schedule(prompt)
        count = sum(len(scheduled.changes(steps)) - 1 for steps in self._steps)
        if count > MAX_WINDOWS:
            raise InvalidInputError([f"{field}: got a text that changes at {count} steps; at most {MAX_WINDOWS}"])

    def _list_texts(self, prompt: str) -> list[str]:
        """All that the prompt says, in any pass."""
        if prompt not in self._texts:
            scheduled = self._schedule(prompt)
            said = [scheduled.text_at(start, steps) for steps in self._steps for start in scheduled.changes(steps)]
            self._texts[prompt] = list(dict.fromkeys(said))
        return self._texts[prompt]

    def _count_windows(self, prompt: str) -> int:
        """Of the longest text that the prompt, or the negative one, is in any pass."""
        if not self._by_clip:
            return 1
        texts = self._list_texts(prompt) + (self._list_texts(self._negative_prompt() or "") if self._guided else [])
        encoders = self._encoders_of(self._engine.pipeline)
        return max(len(encoder.windows(text)) for encoder in encoders for text in texts)

    def _schedule(self, prompt: str) -> ScheduledPrompt:
        if self._engine.capabilities.plain_prompts:
            return ScheduledPrompt(prompt)
        if not self._by_clip:
            return ScheduledPrompt(remove_tags(prompt))
        if prompt not in self._scheduled:
            found = parse_schedule(escape_words(remove_tags(prompt), self._words))
            self._scheduled[prompt] = found if can_change(type(self._engine.pipeline)) else found.as_text()
        return self._scheduled[prompt]

    def _embed(self, pipeline: Any, prompt: str, negative: str | None, windows: int) -> Embeddings:
        """Those of these texts; pictures come prompt by prompt, so the latest are kept."""
        refines = pipeline is self._engine.refiner  # which lacks one of the text encoders
        key = prompt, negative, windows
        if self._latest.get(refines, (None, {}))[0] != key:
            self._latest[refines] = key, self._encode(pipeline, prompt, negative, windows)
        return self._latest[refines][1]

    @torch.no_grad()
    def _encode(self, pipeline: Any, prompt: str, negative: str | None, windows: int) -> Embeddings:
        request, names = self._request, _RETURNS.get(type(self._engine.pipeline).__name__)
        if self._by_clip:
            encoders, skip = self._encoders_of(pipeline), request.clip_skip or 0
            return embed_with_clip(encoders, pipeline, prompt, negative, skip, self._guided, windows)
        if names is None:
            # Each pipeline has its own idea of no negative prompt.
            texts = {"prompt": prompt, "negative_prompt": negative, "clip_skip": request.clip_skip}
            return {name: value for name, value in texts.items() if value is not None}
        found = self._recall(pipeline, names, prompt, negative)
        if negative is None or f"negative_{names[0]}" in names:
            return found
        unwanted = self._recall(pipeline, names, negative, None)
        return {**found, **{f"negative_{name}": value for name, value in unwanted.items()}}

    def _recall(self, pipeline: Any, names: Sequence[str], prompt: str, negative: str | None) -> Embeddings:
        """What diffusers makes of these texts, or has made of them before."""
        key = prompt, negative, self._guided, self._request.clip_skip, self._request.max_sequence_length
        return self._kept.recall(key, lambda: _encode_by_diffusers(pipeline, names, *key))

    @property
    def _guided(self) -> bool:
        return self._request.guidance_scale > 1  # where a pipeline is not guided all the same, it ignores what it gets

    def _negative_prompt(self) -> str | None:
        family, negative = self._engine.capabilities.family, self._request.negative_prompt
        if negative is not None and (family.negative_prompt or (self._request.true_cfg_scale or 0.0) > 1):
            return negative
        # Such pipelines are guided only away from one.
        return " " if family.guidance == "true_cfg_scale" else None

    def _encoders_of(self, pipeline: Any) -> list[ClipEncoder]:
        """The pipeline's text encoders; those that pipelines share are one."""
        found = []
        read = read_plain if self._engine.capabilities.plain_prompts else parse_weights
        for suffix in ("", "_2"):
            module = getattr(pipeline, f"text_encoder{suffix}", None)
            if module is not None:
                made = self._encoders.get(id(module))
                made = made or ClipEncoder(pipeline, suffix, self._words, read, self._kept)
                found.append(self._encoders.setdefault(id(module), made))
        return found


def _encode_by_diffusers(
    pipeline: Any,
    names: Sequence[str],
    prompt: str,
    negative: str | None,
    guided: bool,
    clip_skip: int | None,
    max_sequence_length: int | None,
) -> Embeddings:
    """What the pipeline's own `encode_prompt` returns, under the names that its call has for it."""
    wanted = {
        "prompt": prompt,
        "prompt_2": None,
        "prompt_3": None,
        "negative_prompt": negative,
        "do_classifier_free_guidance": guided,
        "device": pipeline._execution_device,
        "clip_skip": clip_skip,
        **({"max_sequence_length": max_sequence_length} if max_sequence_length else {}),
    }
    accepted = call_arguments(type(pipeline), "encode_prompt")
    values = pipeline.encode_prompt(**{name: value for name, value in wanted.items() if name in accepted})
    return {name: value for name, value in zip(names, values, strict=False) if value is not None}
