"""The model itself, drawn with once at start: one whose files cannot work together is named before any job comes.

What a config says may be possible entry by entry and yet not draw. The proof is a picture that nobody sees.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch

from worker.engine.device_errors import is_out_of_memory
from worker.engine.engine import Engine
from worker.engine.load.gguf_file import unpack
from worker.engine.pipelines import modules
from worker.engine.trials import find_error
from worker.errors import JobTimeoutError, ModelError, NonFiniteOutputError
from worker.request import Picture, Request, self_test_request

log = logging.getLogger("worker")

MAX_MODEL_TRIAL_S = 10.0  # of one picture; looked at after each step
MAX_SECOND_TRIAL_S = 60.0  # of another one, where the first has failed
MAX_SIDE = 128  # pixels of the first one
_PROMPT = "a photo of 2 things"  # words, letters and digits, as a tokenizer must know them


def try_model(engine: Engine) -> None:
    """Draw a small picture; if that fails, one as a job gets it that asks for nothing.

    Raises:
        ModelError: the model draws neither, or its safety checker would find nothing.
    """
    model = engine.capabilities
    if weight := _find_bad_weight(engine, "safety_checker"):
        raise ModelError(f"{model.name}: {weight}; SAFETY_CHECKER=off loads without it")
    step = model.family.size_step
    width, height = (max(step, min(side, MAX_SIDE) // step * step) for side in (model.width, model.height))
    pictures = (Picture(_PROMPT, 0),)
    small = replace(self_test_request(model, (width, height)), pictures=pictures, refinement=None)
    error = find_error(engine, small, MAX_MODEL_TRIAL_S)
    if isinstance(error, JobTimeoutError):
        log.info("the model was not tried to its end at start, which may take %g s for it", MAX_MODEL_TRIAL_S)
    elif error is not None:
        _judge(engine, error, small)
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()


def _judge(engine: Engine, error: Exception, small: Request) -> None:
    """Whether a failure at a small picture is the model's.

    Raises:
        ModelError: it is.
    """
    model = engine.capabilities
    if weight := _find_bad_weight(engine):
        raise ModelError(f"{model.name}: {weight}") from error
    if is_out_of_memory(error):
        raise ModelError(f"{model.name}: there is too little memory to draw {small.width}x{small.height}") from error
    steps = model.default_steps(model.scheduler)
    usual = replace(self_test_request(model, (model.width, model.height)), num_inference_steps=steps)
    usual = replace(usual, pictures=small.pictures, refinement=None)
    second = find_error(engine, usual, MAX_SECOND_TRIAL_S)
    if second is None or isinstance(second, JobTimeoutError) or is_out_of_memory(second):
        log.warning("the model failed at a small picture, and perhaps not at others: %s", _describe(error))
        return
    raise ModelError(f"{model.name}: this model cannot draw, as its files are: {_describe(second)}") from second


def _describe(error: Exception) -> str:
    """What went wrong: a sentence of ours, or the first line of a library's."""
    if isinstance(error, NonFiniteOutputError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def _find_bad_weight(engine: Engine, only: str | None = None) -> str | None:
    """A component's weight that holds numbers that are none; None if there is no such."""
    for name, part in modules(engine.pipeline).items():
        if only in (None, name):
            for weight in _list_bad(part):
                return f"{weight} of {name} holds NaN or infinity; the file is damaged"
    return None


def _list_bad(part: torch.nn.Module) -> Iterator[str]:
    for name, weight in part.named_parameters():
        values = unpack(weight)
        whole = not values.is_floating_point() or values.is_meta or values.element_size() < 2
        if not whole and not torch.isfinite(values).all():
            yield name
