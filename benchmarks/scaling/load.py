"""When pictures are asked for: Poisson arrivals, steady or in bursts. Times in seconds."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

DAY_S = 86_400.0
DAY_SWING = 0.8  # of the mean rate, up by noon and down by midnight
FLASH_S = 120.0

Shape = Literal["steady", "day", "flash"]
SHAPES: dict[Shape, str] = {"steady": "steady", "day": "day and night", "flash": "flash crowd"}


@dataclass(frozen=True)
class Load:
    """How many pictures are asked for.

    Attributes:
        title: for readers.
        rate: pictures a second; of a flash crowd, before and after it.
        seconds: for which it lasts.
        warm_up_s: of these, whose pictures and costs do not count.
        crowd: a flash crowd's rate, in times of the other.
    """

    title: str
    rate: float
    seconds: float
    shape: Shape = "steady"
    warm_up_s: float = 0.0
    crowd: float = 1.0

    @property
    def peak(self) -> float:
        """The highest rate, pictures a second."""
        return self.rate * {"steady": 1.0, "day": 1 + DAY_SWING, "flash": self.crowd}[self.shape]

    def rate_at(self, now: float) -> float:
        """Pictures a second."""
        if self.shape == "day":
            return self.rate * (1 - DAY_SWING * math.cos(2 * math.pi * now / DAY_S))
        begins = self.seconds / 3
        crowded = self.shape == "flash" and begins <= now < begins + FLASH_S
        return self.rate * (self.crowd if crowded else 1.0)


def arrivals(load: Load, seed: int) -> Iterator[float]:
    """When each picture is asked for, in order: a Poisson process of the load's rate, by thinning one of its peak's."""
    return _thin(load.rate_at, load.peak, load.seconds, random.Random(seed))


def _thin(rate_at: Callable[[float], float], peak: float, seconds: float, numbers: random.Random) -> Iterator[float]:
    now = numbers.expovariate(peak)
    while now < seconds:
        if numbers.random() * peak < rate_at(now):
            yield now
        now += numbers.expovariate(peak)
