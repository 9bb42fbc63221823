"""What drawing costs: the seconds of its stages by the device's own clock, and the most memory that it took; and
keeping step with the device.

A GPU works behind the program that feeds it, so a clock on the CPU would give the steps' time to whatever waits for
them. Events in the device's own queue tell them apart, and nothing waits for an event before the pictures are done.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Literal

import torch

from worker.clock import CLOCK

MAX_AHEAD = 2  # steps

Stage = Literal["text", "denoise", "decode"]


@dataclass(frozen=True)
class Usage:
    """What drawing has cost.

    Attributes:
        text_s: encoding prompts.
        denoise_s: all denoising steps, encoding a picture to start from included.
        decode_s: latents to finished pictures.
        peak_bytes: the most memory that tensors took on the GPU, the model's included; None without one.
    """

    text_s: float
    denoise_s: float
    decode_s: float
    peak_bytes: int | None


NO_USAGE = Usage(0.0, 0.0, 0.0, None)


class Lookahead:
    """Keeps the program no more than a few steps ahead of the device: what is told of a job is true, and a cancel stops
    the device soon. Without that, a whole job of graphs would be under way before its first step is done."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is under way."""
        self._device = device if device.type == "cuda" else None
        self._under_way: deque[Any] = deque()

    def step(self) -> None:
        """A step has been handed to the device; wait for the one `MAX_AHEAD` before it."""
        if self._device is None:
            return
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._under_way.append(event)
        if len(self._under_way) > MAX_AHEAD:
            self._under_way.popleft().synchronize()


class Meter:
    """Takes the laps of one job on one device, by the thread that draws it."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is drawn yet."""
        self._device = device if device.type == "cuda" else None
        self._marks: list[tuple[Stage | None, Any]] = []  # what ended at a time
        if self._device:
            torch.cuda.reset_peak_memory_stats(self._device)

    def start(self) -> None:
        """What went before belongs to no stage."""
        self._mark(None)

    def lap(self, stage: Stage) -> None:
        """This stage has taken the time since the last lap."""
        self._mark(stage)

    def read(self) -> Usage:
        """What was measured so far; waits for the device."""
        seconds: Counter[Stage] = Counter()
        if self._device:
            torch.cuda.synchronize(self._device)
        for (_, before), (stage, now) in zip(self._marks, self._marks[1:], strict=False):
            if stage is not None:
                seconds[stage] += before.elapsed_time(now) / 1000 if self._device else now - before
        peak = torch.cuda.max_memory_allocated(self._device) if self._device else None
        return Usage(seconds["text"], seconds["denoise"], seconds["decode"], peak)

    def _mark(self, stage: Stage | None) -> None:
        if self._device:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append((stage, event))
        else:
            self._marks.append((stage, CLOCK.running_time()))
