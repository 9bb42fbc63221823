"""Embeddings that change while a pass runs: which hold from which step on, and putting them in place at that step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engine.pipelines import call_arguments

Embeddings = Mapping[str, Any]  # arguments of a pipeline's call

# The pipelines' loops have them under these names, what is to be drawn behind what is not; InstructPix2Pix otherwise.
_IN_LOOPS = {"prompt_embeds": "prompt_embeds", "pooled_prompt_embeds": "add_text_embeds"}


@dataclass(frozen=True)
class Phase:
    """What a pipeline is told from a step on.

    Attributes:
        start: steps of the pass's noise schedule that are done by then.
    """

    start: int
    embeddings: Embeddings


def can_change(kind: type) -> bool:
    """Whether pipelines of this class can be told something else at a step."""
    inputs = getattr(kind, "_callback_tensor_inputs", ())
    return "callback_on_step_end_tensor_inputs" in call_arguments(kind) and "prompt_embeds" in inputs


def join_phases(found: Sequence[Sequence[Phase]], pipeline: Any) -> list[Phase]:
    """The phases of a batch, from those of its pictures."""
    starts = sorted({phase.start for phases in found for phase in phases})
    return [Phase(start, _join([_at(start, phases).embeddings for phases in found], pipeline)) for start in starts]


class PhaseChanger:
    """Tells a pipeline, while it runs, what each phase says."""

    def __init__(self, phases: Sequence[Phase], start: int, length: int) -> None:
        """The pipeline has been told what the first phase says.

        Args:
            start: steps of the pass's noise schedule that are done before it.
            length: steps that the scheduler is asked for, whether the pass runs all of them or not.
        """
        self._phases = phases
        self._start = start
        self._length = length
        self._now = phases[0]

    def arguments(self, pipeline: Any) -> dict[str, Any]:
        """What the pipeline's call takes, so that it shows what is to be changed."""
        if len(self._phases) == 1:
            return {}
        shown = [name for name in _IN_LOOPS.values() if name in pipeline._callback_tensor_inputs]
        return {"callback_on_step_end_tensor_inputs": ["latents", *shown]}

    def change(self, pipeline: Any, index: int, tensors: Mapping[str, Tensor]) -> None:
        """What the next step is to be told, after the step of this index.

        In place: some pipelines show their embeddings, and do not take them back.
        """
        timesteps = len(pipeline.scheduler.timesteps)  # twice as many where each step is two
        phase = _at(self._start + (index + 1) * self._length // timesteps, self._phases)
        if phase is self._now:
            return
        self._now = phase
        for argument, name in _IN_LOOPS.items():
            if name in tensors:
                parts = [phase.embeddings[argument]]
                if pipeline.do_classifier_free_guidance:
                    unwanted = phase.embeddings[f"negative_{argument}"]
                    parts = [*parts, unwanted, unwanted] if _has_picture_too(pipeline) else [unwanted, *parts]
                tensors[name].copy_(torch.cat(parts))


def _has_picture_too(pipeline: Any) -> bool:
    """Whether its guidance compares what is wanted of the picture with the picture alone, and that with nothing."""
    return hasattr(pipeline, "image_guidance_scale")


def _at(done: int, phases: Sequence[Phase]) -> Phase:
    """The phase when so many steps are done."""
    return next(phase for phase in reversed(phases) if phase.start <= done)


def _join(found: Sequence[Embeddings], pipeline: Any) -> dict[str, Any]:
    """The arguments of this pipeline's call for a batch, from those of its pictures."""
    accepted = call_arguments(type(pipeline))
    return {name: _stack([one[name] for one in found]) for name in found[0] if name in accepted}


def _stack(values: Sequence[Any]) -> Any:
    """One value for the batch: tensors (pictures, ...), several texts in a list, and what all share as it is.

    A single text stays one: in a list, an empty one is none to a model that writes what is missing.
    """
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    return list(values) if isinstance(values[0], str) else values[0]
