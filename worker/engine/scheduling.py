"""Scheduler rows -> diffusers schedulers, and how each of their steps is watched."""

import copy
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import LMSDiscreteScheduler

from worker.models.schedulers import Scheduler

MAX_COEFFICIENTS = 10_000  # kept; a schedule of 20 steps has 74

OnPrediction = Callable[[Any, torch.Tensor, Any, torch.Tensor], None]


class BoundedLMS(LMSDiscreteScheduler):  # type: ignore[misc]
    """LMS whose order is bounded by the derivatives it holds, and whose coefficients are integrated once.

    diffusers bounds the order by the position in the schedule. A schedule that is entered in its middle (image to
    image, inpainting, refining) then starts with a formula of order 4 and one derivative, and goes astray. And it
    integrates for each picture again, 0.1 s of processor time and more, though the sigmas alone decide.
    """

    _coefficients: ClassVar[dict[tuple[float, ...], float]] = {}

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, order: int = 4, return_dict: bool = True
    ) -> Any:
        """As in diffusers."""
        return super().step(model_output, timestep, sample, min(order, len(self.derivatives) + 1), return_dict)

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """As in diffusers."""
        key = (current_order, *self.sigmas[t - order + 1 : t + 2].tolist())
        if key not in self._coefficients:
            if len(self._coefficients) >= MAX_COEFFICIENTS:
                self._coefficients.clear()
            self._coefficients[key] = super().get_lms_coefficient(order, t, current_order)
        return self._coefficients[key]


def build_scheduler(row: Scheduler, config: Mapping[str, Any], built: dict[tuple[Any, ...], Any]) -> Any:
    """A scheduler of this row on the model's own original config, without any earlier job's state.

    Args:
        config: of the model's own scheduler, as loaded.
        built: those built so far. A new one is a copy, because some classes take half a second to construct.
    """
    key = (row.class_name, *row.options.items())
    if key not in built:
        kind = BoundedLMS if row.class_name == "LMSDiscreteScheduler" else getattr(diffusers, row.class_name)
        built[key] = kind.from_config(dict(config), **row.options)
    scheduler = copy.deepcopy(built[key])
    _count_exactly(scheduler)
    if hasattr(scheduler, "_init_step_index"):
        _start_at_the_first(scheduler)
    return scheduler


class _Steps(int):
    """A number of steps that divides the timesteps of the training into spans a hair too wide, not too narrow."""

    def __rtruediv__(self, total: float) -> float:
        return math.nextafter(total / int(self), math.inf)


def _count_exactly(scheduler: Any) -> None:
    """Have a schedule with trailing spacing as many timesteps as it should.

    diffusers counts down in spans of total / steps. Where that is rounded down, at 61 steps for example, one span more
    fits in; it ends at timestep -1, which most classes read as the noisiest.
    """
    settle = scheduler.set_timesteps

    @functools.wraps(settle)  # pipelines read the signature
    def settle_exactly(num_inference_steps: int | None = None, *rest: Any, **named: Any) -> Any:
        return settle(num_inference_steps and _Steps(num_inference_steps), *rest, **named)

    scheduler.set_timesteps = settle_exactly


def _start_at_the_first(scheduler: Any) -> None:
    """Have a schedule whose first timesteps are equal start at the first of them.

    Sigmas close together are rounded to one timestep. diffusers then takes the second, and misses one in the end.
    """
    find = scheduler._init_step_index

    def find_first(timestep: Any) -> None:
        if scheduler.begin_index is None and timestep == scheduler.timesteps[0]:
            scheduler._step_index = 0
        else:
            find(timestep)

    scheduler._init_step_index = find_first


def watch(scheduler: Any, on_prediction: OnPrediction) -> None:
    """Show every step's inputs to `on_prediction`: the scheduler, the model's output, the timestep, the sample."""
    step = scheduler.step

    @functools.wraps(step)  # pipelines read the signature
    def watched(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *rest: Any, **named: Any) -> Any:
        on_prediction(scheduler, model_output, timestep, sample)
        return step(model_output, timestep, sample, *rest, **named)

    scheduler.step = watched
