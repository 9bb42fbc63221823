"""RunPod's pools of GPUs and their listed prices, from prices.toml."""

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

FILE = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Pool:
    """GPUs of one price.

    Attributes:
        id: as RunPod's API and hub.json name it.
        gpus: in RunPod's words.
        gigabytes: of memory.
        per_second: US dollars for a worker with one of them.
    """

    id: str
    gpus: str
    gigabytes: int
    per_second: float

    def holds(self, gpu: str) -> bool:
        """Whether a GPU of this name, as its driver tells it, is one of the pool."""
        words = f" {gpu.replace('-', ' ')} "
        return any(f" {name} " in words for name in self.gpus.split(", "))


@dataclass(frozen=True)
class Prices:
    """All that was listed on one day.

    Attributes:
        read: the day.
        source: the page.
    """

    read: date
    source: str
    pools: tuple[Pool, ...]

    def pool(self, pool_id: str) -> Pool:
        """The pool of this id."""
        return next(one for one in self.pools if one.id == pool_id)

    def find(self, gpu: str) -> Pool | None:
        """The pool that a GPU is in, by its driver's name; None if it is in none."""
        return next((one for one in self.pools if one.holds(gpu)), None)


def read_prices() -> Prices:
    """The listed prices."""
    given = tomllib.loads(FILE.read_text())
    return Prices(given["read"], given["source"], tuple(Pool(**one) for one in given["pools"]))
