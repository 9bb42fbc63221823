"""The scenes with pictures: every contestant warmed up, then all in turns, round after round, in one process."""

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from benchmarks.ceilings import measure_floor, synchronize
from benchmarks.contestants import Contestant, Draw, Ours, Pipeline, list_contestants
from benchmarks.results import Case, Floor, Quality
from benchmarks.scenes import Scene

T = TypeVar("T")
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SETTLING = 4  # more jobs: passes are compiled when they were done often, which a model of four steps has after four


@dataclass
class Entry:
    """A contestant that has loaded, and what it has shown so far.

    Attributes:
        held: bytes on the GPU that are its own: what was allocated while it loaded and drew, and is there still.
        peak: the most that there were.
    """

    contestant: Contestant
    device: torch.device
    held: int = 0
    peak: int = 0
    load_s: float = 0.0
    first_s: float = 0.0
    second_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def warm_up(self) -> None:
        """Load and draw."""
        self.load_s, self.draw = self._clock(self.contestant.load)
        self.first_s, _ = self._clock(lambda: self.draw(0))
        self.second_s, _ = self._clock(lambda: self.draw(0))
        if isinstance(self.draw, Ours) and self.device.type == "cuda":
            for _ in range(SETTLING):
                self.draw.worker.settle()  # what it compiles between jobs would take time from the others
                self._clock(lambda: self.draw(0))

    def play(self, seed: int) -> None:
        """One round."""
        seconds, pictures = self._clock(lambda: self.draw(seed))
        self.seconds.append(seconds)
        self.pictures += pictures

    def report(self, reference: "Entry") -> Case:
        """What it has shown, beside the first baseline."""
        return Case(
            name=self.contestant.name,
            seconds=tuple(self.seconds),
            against=self.contestant.against,
            load_s=self.load_s,
            first_s=self.first_s,
            second_s=self.second_s,
            peak_bytes=self.peak if self.device.type == "cuda" else None,
            quality=compare(self.pictures, reference.pictures) if self is not reference else None,
        )

    draw: Draw = field(init=False)

    def _clock(self, work: Callable[[], T]) -> tuple[float, T]:
        before = self._allocated()
        synchronize(self.device)
        started = time.perf_counter()
        done = work()
        synchronize(self.device)
        seconds = time.perf_counter() - started
        if self.device.type == "cuda":
            self.peak = max(self.peak, self.held + torch.cuda.max_memory_allocated(self.device) - before)
            self.held += torch.cuda.memory_allocated(self.device) - before
        return seconds, done

    def _allocated(self) -> int:
        if self.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)


def play(scene: Scene, model: Path, rounds: int, ours: Sequence[Mapping[str, str]]) -> tuple[list[Case], Floor]:
    """Measure every contestant of this scene, and the floor in the same process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    entries = [Entry(contestant, device) for contestant in list_contestants(scene, model, device, ours)]
    take_turns(entries, scene, rounds)
    reference = entries[0]
    assert isinstance(reference.draw, Pipeline)
    cases = [entry.report(reference) for entry in entries]
    return cases, measure_floor(reference.draw, device)


def take_turns(entries: Sequence[Entry], scene: Scene, rounds: int) -> None:
    """All warm up, then all draw, round after round."""
    for entry in entries:
        entry.warm_up()
    for number in range(rounds):
        for entry in entries:
            entry.play(seed=1 + number * scene.pictures)


def compare(ours: Sequence[str], theirs: Sequence[str]) -> Quality:
    """How near these pictures, data URIs, are to those."""
    differences, contrasts = [], []
    for one, other in zip(ours, theirs, strict=True):
        expected = _pixels(other)
        differences.append(np.abs(_pixels(one) - expected))
        contrasts.append(float(expected.std()))
    errors = [float(np.square(difference).mean()) for difference in differences]
    worst, largest = max(errors), max(int(difference.max()) for difference in differences)
    psnr = 10 * float(np.log10(255**2 / worst)) if worst > 0 else None
    return Quality(psnr, largest, min(contrasts))


def _pixels(data_uri: str) -> Pixels:
    data = base64.b64decode(data_uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float64)
