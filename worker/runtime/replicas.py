"""The engines of this process, one on each device that it uses, and what is learnt of each."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from worker.engine.drawing import Drawing, Outcome
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs
from worker.engine.trials import explain
from worker.errors import InternalError
from worker.plan import Plan
from worker.request import Request
from worker.runtime.failures import classify, recover


class Replica:
    """An engine, as an artist of the `Batcher`.

    Attributes:
        name: of its device.
    """

    def __init__(self, engine: Engine) -> None:
        """Nothing is drawn yet."""
        self.engine = engine
        self.name = str(engine.device)
        self._idle_so_far = True  # no job was drawn yet
        self._known_good: tuple[int, int] | None = None  # the largest picture so far, up to the native size

    def begin(self) -> None:
        """As `Artist`."""
        self.engine.enter_thread()

    def max_batch(self, plan: Plan) -> int:
        """As `Artist`."""
        return self.engine.batch_size.choose(plan)

    def draw(self, drawings: Sequence[Drawing]) -> list[Outcome]:
        """As `Artist`."""
        outcomes = draw_jobs(self.engine, drawings, partial(recover, self.engine, known_good=self._known_good))
        first, self._idle_so_far = self._idle_so_far, False
        outcomes = [replace(outcome, first=first) for outcome in outcomes]
        return [self._learn(one.plan.request, outcome) for one, outcome in zip(drawings, outcomes, strict=True)]

    def _learn(self, request: Request, outcome: Outcome) -> Outcome:
        """What became of a job; of a failure that nobody foresaw, whether the request will always fail so."""
        model = self.engine.capabilities
        if outcome.error is None and request.width * request.height <= model.width * model.height:
            self._known_good = max(self._known_good or (0, 0), (request.width, request.height), key=math.prod)
        if not isinstance(outcome.error, InternalError) or not outcome.error.acquitted:
            return outcome
        try:
            reason = explain(self.engine, request)
        except Exception as error:
            return replace(outcome, error=classify(error))
        return replace(outcome, error=reason or outcome.error)
