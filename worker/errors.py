"""The closed family of failures, and what the caller is told of each.

Every failure this worker expects is one of these classes. The code is stable, for programs; the message is one
sentence or more for people: what came, and what is allowed. Nothing here knows where a failure was noticed.

    WorkerError                     code
    ├── SettingsError               BAD_SETTING         the endpoint's owner
    ├── ModelError                  MODEL_ERROR
    │   └── MissingFileError
    ├── InvalidInputError           INVALID_INPUT       the request
    ├── UnusablePictureError        INVALID_INPUT       the request; told under the field that names the picture
    ├── ResultTooLargeError         RESULT_TOO_LARGE
    ├── DeliveryError               DELIVERY_FAILED
    ├── JobTimeoutError             JOB_TIMEOUT
    ├── JobCancelledError           JOB_CANCELLED       its caller; never told
    ├── OutOfMemoryError            OUT_OF_MEMORY       the process may be to blame
    ├── NonFiniteOutputError        NON_FINITE_OUTPUT
    ├── InternalError               INTERNAL_ERROR
    └── WorkerBrokenError           WORKER_BROKEN       the process is
"""

from collections.abc import Sequence
from typing import ClassVar

from worker.text import escape


class WorkerError(Exception):
    """A failure with a stable code.

    Attributes:
        code: names the kind of failure; clients may compare it.
        suspicious: True when the request was admissible, so that this process may be to blame.
        refresh_worker: True when the process itself is broken and must not take another job.
        acquitted: True when this process has drawn a request known to be good since.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    refresh_worker: ClassVar[bool] = False
    suspicious: ClassVar[bool] = False
    acquitted: bool = False

    def __str__(self) -> str:
        """The message on one line, whatever it quotes: names of files, entries of configs, texts of a job."""
        return escape(super().__str__())


class SettingsError(WorkerError):
    """An environment variable has a value that the worker cannot use."""

    code = "BAD_SETTING"


class ModelError(WorkerError):
    """The model cannot be found, read, or used to draw from a prompt."""

    code = "MODEL_ERROR"


class MissingFileError(ModelError):
    """The repository is there, but it has no such file."""


class InvalidInputError(WorkerError):
    """The request is wrong; every problem is listed, each naming its field.

    Attributes:
        problems: each as "field: what came, what is allowed".
    """

    code = "INVALID_INPUT"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class UnusablePictureError(WorkerError):
    """A picture cannot be had. The text is for the caller: a sentence of ours, never one of a socket or a codec."""

    code = "INVALID_INPUT"


class ResultTooLargeError(WorkerError):
    """The pictures do not fit into the platform's answer and may not go anywhere else."""

    code = "RESULT_TOO_LARGE"


class DeliveryError(WorkerError):
    """The pictures were made but could not be stored where the job wanted them."""

    code = "DELIVERY_FAILED"


class JobTimeoutError(WorkerError):
    """The job ran longer than JOB_TIMEOUT_S."""

    code = "JOB_TIMEOUT"


class JobCancelledError(WorkerError):
    """Nobody wants the job any more: it was cancelled, or the platform's own time for it is over. Nobody is told."""

    code = "JOB_CANCELLED"


class OutOfMemoryError(WorkerError):
    """The accelerator's memory is too small for this request; a smaller one can succeed."""

    code = "OUT_OF_MEMORY"
    suspicious = True


class NonFiniteOutputError(WorkerError):
    """The model computed numbers that are none, which would be a black picture."""

    code = "NON_FINITE_OUTPUT"
    suspicious = True


class InternalError(WorkerError):
    """Something unexpected went wrong with this job, and the worker has proved that it still computes."""

    suspicious = True


class WorkerBrokenError(WorkerError):
    """The process can no longer compute; it answers this job and leaves."""

    code = "WORKER_BROKEN"
    refresh_worker = True
