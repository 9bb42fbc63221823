"""What a job meets: the loaded model, and what the endpoint's owner has set around it."""

from dataclasses import dataclass

from worker.models.capabilities import Capabilities
from worker.output.options import OutputRules
from worker.settings import Settings


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, for jobs that ask what there is.

    Attributes:
        jobs_at_once: that a worker takes, on all of its GPUs.
    """

    model: Capabilities
    output: OutputRules
    settings: Settings
    jobs_at_once: int
