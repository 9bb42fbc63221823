"""What an exception means for the job's caller and for this process."""

import logging

from worker.engine.device_errors import is_device_fault, is_out_of_memory
from worker.errors import InternalError, OutOfMemoryError, WorkerBrokenError, WorkerError

log = logging.getLogger("worker")


BROKEN = "this worker is replaced, please send the job again"


def classify(error: Exception, doing: str = "making the picture") -> WorkerError:
    """What an exception means for the job's caller, or the endpoint's owner, and for this process."""
    if isinstance(error, WorkerError):
        return error
    if is_out_of_memory(error):
        return OutOfMemoryError("the accelerator ran out of memory; ask for fewer pixels")
    log.error("unexpected failure", exc_info=error)
    if is_device_fault(error):
        return WorkerBrokenError(f"the accelerator has failed; {BROKEN}")
    return InternalError(f"unexpected {type(error).__name__} while {doing}")
