"""How far a stage is: stages are given seconds, not steps, so that the whole fits its time on any GPU."""

import math
import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """A stage's time, which may be spread over several runs.

    Attributes:
        total: seconds that the stage may take, compilation left out.
        spent: seconds that earlier runs took.
        deadline: `time.monotonic()` at which this run must stop.
    """

    total: float
    spent: float = 0.0
    deadline: float = math.inf
    steps: int = 0
    _last: float = field(default_factory=time.monotonic)

    def tick(self) -> bool:
        """Count one step; False when no time is left. A run's first step, which compiles, is free."""
        now = time.monotonic()
        if self.steps > 1:
            self.spent += now - self._last
        self._last = now
        self.steps += 1
        return self.spent < self.total and now < self.deadline

    @property
    def done(self) -> bool:
        """Whether the stage has had its time."""
        return self.spent >= self.total

    def rate(self, peak: float) -> float:
        """The learning rate now: a short warm-up in each run (the optimizer starts afresh), then half a cosine to 0."""
        fall = 0.5 + 0.5 * math.cos(math.pi * min(self.spent / self.total, 1))
        return peak * fall * min(1.0, self.steps / 200)
