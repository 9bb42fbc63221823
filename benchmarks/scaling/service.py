"""How long drawing takes, and how RunPod's SDK takes jobs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One model on one GPU.

    Attributes:
        seconds: of drawing one picture, two at once, three, and so on, up to as many as are drawn at once.
    """

    seconds: tuple[float, ...]

    @property
    def max_batch(self) -> int:
        """Pictures that are drawn at once, at most."""
        return len(self.seconds)


@dataclass(frozen=True)
class Sdk:
    """The waits of RunPod's SDK, in seconds; by default those of its version 1.12.

    Attributes:
        full_s: between two looks at whether there is room for another job, while there is none.
        start_s: from one look for jobs that were taken to the next.
        apart_s: between two jobs that were taken together, on their way to the thread that draws.
    """

    full_s: float = 1.0
    start_s: float = 0.1
    apart_s: float = 0.001
