"""Counts the denoising steps of a job and watches the clock."""

from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from worker.clock import CLOCK
from worker.errors import JobTimeoutError
from worker.plan import Plan

MakePreview = Callable[[], Image | None]
OnStep = Callable[[int, int, MakePreview | None], None]
Change = Callable[[Any, int, dict[str, Any]], None]


class StepCounter:
    """Counts the denoising steps of a job, over all its pictures and passes, and watches the clock."""

    def __init__(self, plan: Plan, on_step: OnStep, deadline: float | None) -> None:
        """Nothing is drawn yet.

        Args:
            on_step: told the number of steps done, the number in all, and how to make a preview if one is wanted.
            deadline: in the clock's running time; checked at every step.
        """
        self._expected = [one.expected_steps for one in plan.passes]  # of each pass of a picture
        self._pictures = len(plan.request.pictures)
        self._on_step = on_step
        self._deadline = deadline
        self.done = 0

    def count(self, number: int, pictures: int, pipeline: Any, make_preview: MakePreview | None) -> None:
        """One more step is done.

        Args:
            number: of the pass.
            pictures: of this job, that have taken it at once.

        Raises:
            JobTimeoutError: the deadline has passed.
        """
        self.done += pictures
        self.check_time()
        # Some schedulers step twice for each step that was asked for.
        self._expected[number] = getattr(pipeline, "num_timesteps", self._expected[number])
        self._on_step(self.done, max(self.done, self._pictures * sum(self._expected)), make_preview)

    def check_time(self) -> None:
        """Go on, if there is time left.

        Raises:
            JobTimeoutError: the deadline has passed.
        """
        if self._deadline is not None and CLOCK.running_time() > self._deadline:
            raise JobTimeoutError(f"stopped after {self.done} steps: the job's time is over (JOB_TIMEOUT_S)")


def step_callbacks(on_step: Callable[[], None], change: Change = lambda *_: None) -> dict[str, Any]:
    """Both ways in which pipelines tell of their steps, as arguments of their call; each takes one of them.

    Args:
        change: what else happens, where the pipeline shows its tensors: told it, the step's index, and them.
    """

    def on_step_end(pipeline: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        change(pipeline, index, tensors)
        return tensors

    return {"callback_on_step_end": on_step_end, "callback": lambda *_: on_step(), "callback_steps": 1}
