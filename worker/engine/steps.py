"""Counts the denoising steps of a job and watches the clock."""

import time
from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from worker.errors import JobTimeoutError
from worker.plan import expected_steps
from worker.request import Request

MakePreview = Callable[[], Image | None]


OnStep = Callable[[int, int, MakePreview | None], None]


class StepCounter:
    """Counts the denoising steps of a job, over all its pictures and passes, and watches the clock."""

    def __init__(self, request: Request, on_step: OnStep, deadline: float | None) -> None:
        self._expected = expected_steps(request)  # of each pass of a picture
        self._pictures = len(request.pictures)
        self._on_step = on_step
        self._deadline = deadline
        self.done = 0
        self._pass = -1

    def back_to(self, done: int) -> None:
        """Count on from here: a picture is drawn anew."""
        self.done = done
        self._pass = -1

    def of(self, pipeline: Any, make_preview: MakePreview | None) -> dict[str, Any]:
        """Both ways in which pipelines tell of their steps; each takes one of them. To be called once a pass."""
        self._pass = (self._pass + 1) % len(self._expected)

        def on_step_end(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self._tick(pipeline, make_preview)
            return tensors

        return {
            "callback_on_step_end": on_step_end,
            "callback": lambda *_: self._tick(pipeline, make_preview),
            "callback_steps": 1,
        }

    def _tick(self, pipeline: Any, make_preview: MakePreview | None) -> None:
        self.done += 1
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise JobTimeoutError(f"stopped after {self.done} steps: the job's time is over (JOB_TIMEOUT_S)")
        # Some schedulers step twice for each step that was asked for.
        self._expected[self._pass] = getattr(pipeline, "num_timesteps", self._expected[self._pass])
        self._on_step(self.done, max(self.done, self._pictures * sum(self._expected)), make_preview)
