"""How many pictures are drawn at once: as many as there is memory for, and no more than draw faster for it."""

import logging
from collections.abc import Sequence

from worker.engine.memory_plan import DENOISE
from worker.plan import Plan
from worker.request import Control

log = logging.getLogger("worker")


class BatchSize:
    """The rule of one engine, which learns from batches that were too large."""

    def __init__(self, wanted: int | None, room: int, pays: int, joins_controls: bool = True) -> None:
        """Nothing is learnt yet.

        Args:
            wanted: the owner's choice; None for as many as there is room for and as pay.
            room: bytes of device memory beside the weights; 0 on a CPU, which gains nothing.
            pays: pixels of all pictures together, up to which more of them draw faster.
            joins_controls: whether pictures that follow a ControlNet can be drawn at once.
        """
        self._wanted = wanted
        self._room, self._pays = room, pays
        self._max_pixels = min(pays, room // DENOISE)
        self._joins_controls = joins_controls

    def choose(self, plan: Plan) -> int:
        """Pictures of this plan that are drawn at once, at most; one where they would not be those drawn alone."""
        if plan.request.references or not self._joins(plan.request.controls):
            return 1
        return self._wanted or max(1, self._max_pixels // _largest_pass(plan))

    def _joins(self, controls: Sequence[Control]) -> bool:
        """Several ControlNets take one picture each, and so do one with a mode and one that is shown a hole."""
        if len(controls) > 1 or any(one.mode is not None or one.hole for one in controls):
            return False
        return self._joins_controls or not controls

    def explain(self, width: int, height: int) -> str:
        """For the log: how many pictures of this size, and why."""
        if self._wanted:
            return f"up to {self._wanted} pictures, MAX_BATCH says so"
        fit, pay = self._room // (width * height * DENOISE), self._pays // (width * height)
        number = max(1, min(fit, pay))
        why = "a CPU gains nothing by more" if not self._room else f"memory for {fit}, faster up to {max(1, pay)}"
        return f"up to {number} of {width}x{height}: {why}"

    def note_out_of_memory(self, plan: Plan, pictures: int) -> None:
        """So many of this plan's pictures at once were too many: from now on at most half as many."""
        fit = _largest_pass(plan) * (pictures // 2)
        if self._wanted is None and fit < self._max_pixels:
            self._max_pixels = fit
            log.warning("out of memory with %d pictures at once; from now on at most half as many", pictures)


def _largest_pass(plan: Plan) -> int:
    """Pixels of a picture where it is largest."""
    return max(one.width * one.height for one in plan.passes)
