"""What an exception means for the job's caller and for this process."""

import logging
from collections.abc import Callable

from worker.engine.device_errors import is_device_fault, is_out_of_memory
from worker.engine.engine import Engine
from worker.engine.recovery import release_exception_memory
from worker.engine.self_test import self_test
from worker.errors import (
    InternalError,
    InvalidInputError,
    JobTimeoutError,
    ModelError,
    OutOfMemoryError,
    WorkerBrokenError,
    WorkerError,
)

log = logging.getLogger("worker")


BROKEN = "this worker is replaced, please send the job again"
_DRAWING = "making the picture"


def classify(error: Exception, doing: str = _DRAWING) -> WorkerError:
    """What an exception means for the job's caller, or the endpoint's owner, and for this process."""
    if isinstance(error, WorkerError):
        return error
    if is_out_of_memory(error) and doing != _DRAWING:
        return ModelError(f"memory ran out while {doing}; it fits with OFFLOAD or QUANTIZE, or into a larger machine")
    if is_out_of_memory(error):
        return OutOfMemoryError("the accelerator ran out of memory; ask for fewer pixels")
    log.error("unexpected failure", exc_info=error)
    if is_device_fault(error):
        return WorkerBrokenError(f"the accelerator has failed; {BROKEN}")
    return InternalError(f"unexpected {type(error).__name__} while {doing}")


def recover(engine: Engine, error: Exception, known_good: tuple[int, int] | None = None) -> WorkerError:
    """What this exception of a drawing means, once the engine is as it was; or that this process is broken.

    Whatever happens to one request may be the request's. What happens to one that is known to be good is not.

    Args:
        known_good: a size that has been drawn, in pixels. Memory that is used up for good shows only at such a one.
    """
    failure = classify(error)
    if failure.refresh_worker or isinstance(failure, InvalidInputError):
        return failure

    def restore() -> None:
        release_exception_memory(error)
        engine.repair()
        if failure.suspicious:
            self_test(engine)
        if isinstance(failure, OutOfMemoryError) and known_good is not None:
            self_test(engine, known_good)

    return judge(failure, restore)


def judge(failure: WorkerError, proof: Callable[[], None]) -> WorkerError:
    """This failure, which is the job's own if the proof succeeds; or that this process is broken.

    Args:
        proof: makes a picture that is known to be good, where the failure is suspicious.
    """
    try:
        proof()
    except JobTimeoutError:
        log.warning("the proof that this worker still makes pictures took too long, and was stopped")
    except Exception as second:
        log.error("this worker makes no pictures any more", exc_info=second)
        return WorkerBrokenError(f"{failure}; {BROKEN}")
    else:
        failure.acquitted = failure.suspicious
    return failure
