"""What goes wrong while files are read -> one sentence for the model's owner, also where memory was too small."""

from pathlib import Path

from worker.engine.device_errors import is_out_of_memory
from worker.errors import ModelError
from worker.models.hub import first_line

# What the libraries raise at files that are not as published, and where memory ends.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
)


def explain_unreadable(what: str, error: Exception, folder: Path) -> ModelError:
    """Why files could not be read.

    Args:
        what: the message up to the reason.
        folder: with the files, whose weights may be more than memory holds.
    """
    if _ran_out_of_memory(error):
        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        return ModelError(f"{what}: there is too little memory for its {size / 1e9:.1f} GB of weights")
    # Both libraries advise then how to go on with weights drawn at random.
    misfit = "ignore_mismatched_sizes" in str(error)
    return ModelError(f"{what}: {'weights do not fit its config' if misfit else first_line(error)}")


def _ran_out_of_memory(error: Exception) -> bool:
    return is_out_of_memory(error) or "Cannot allocate memory" in str(error)
