"""What goes wrong while libraries read a model's files, or while memory ends -> one sentence for its owner."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from worker.engine.device_errors import is_device_fault, is_out_of_memory
from worker.errors import ModelError
from worker.models.hub import first_line

MAX_REASON_LENGTH = 200  # characters
_SENTENCES = (OSError, RuntimeError, ValueError)  # which mostly say what is wrong; others only what kind of thing
_KINDS = (
    *_SENTENCES,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    StrictDataclassError,
    TypeError,
)


@contextmanager
def explain_unreadable(what: str, folder: Path | None = None) -> Iterator[None]:
    """Say of files that are not as published, or larger than memory, what the libraries say inside the `with`.

    Args:
        what: the message up to the reason.
        folder: with the files, if they are in one.

    Raises:
        ModelError: they cannot be read.
    """
    try:
        yield
    except Exception as error:
        known = isinstance(error, _KINDS) or type(error) is Exception  # which is all that tokenizers raises
        if not known or is_device_fault(error):
            raise
        part = _find_component(error)
        raise ModelError(f"{what}: {f'{part}: ' if part else ''}{_explain(error, folder)}") from error


def _explain(error: Exception, folder: Path | None) -> str:
    if is_out_of_memory(error) or "Cannot allocate memory" in str(error):
        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) if folder else 0
        return "there is too little memory for its weights" + (f", {size / 1e9:.1f} GB in files" if size else "")
    if "ignore_mismatched_sizes" in str(error):  # both libraries advise then how to go on with random weights
        return "weights do not fit its config"
    said = first_line(error)[:MAX_REASON_LENGTH]
    return said if isinstance(error, _SENTENCES) else f"{type(error).__name__}: {said}"


def _find_component(error: Exception) -> str | None:
    """Which component diffusers was reading; its messages do not say."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_name == "load_sub_model":
            name = frame.tb_frame.f_locals.get("name")
            return name if isinstance(name, str) else None
        frame = frame.tb_next
    return None
