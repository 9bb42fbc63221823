"""The engines of this process, one on each device that it uses, and what is learnt of each."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from worker.clock import CLOCK
from worker.engine.drawing import Drawing, Outcome
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs
from worker.engine.meter import NO_USAGE
from worker.engine.trials import explain
from worker.errors import InternalError, SettingsError
from worker.plan import Plan
from worker.request import Request
from worker.runtime.failures import classify, recover


class Replica:
    """An engine, as an artist of the `Batcher`.

    Attributes:
        engine: that draws.
        name: of its device.
    """

    def __init__(self, engine: Engine, partner: Engine | None = None, takes_help: bool = False) -> None:
        """Nothing is drawn yet.

        Args:
            partner: an engine that does half of every guided pass, and nothing else.
            takes_help: whether any other one may do that which has nothing else to do.
        """
        self.engine, self.name = engine, str(engine.device)
        self._partner, self._takes_help = partner, takes_help
        self._idle_so_far = True  # no job was drawn yet
        self._known_good: tuple[int, int] | None = None  # the largest picture so far, up to the native size

    def max_batch(self, plan: Plan) -> int:
        """As `Artist`."""
        return self.engine.batch_size.choose(plan)

    def wants_help(self, plan: Plan) -> bool:
        """As `Artist`."""
        return self._takes_help and self.engine.graphs is not None and plan.request.guidance_scale > 1

    def works(self) -> bool:
        """As `Artist`."""
        return self.engine.works()

    def goes_on_alone(self) -> bool:
        """As `Artist`."""
        lost = self._partner is not None and not self._partner.works()
        if lost:
            self._partner = None
        return lost

    def draw(self, drawings: Sequence[Drawing], helper: "Replica | None" = None) -> list[Outcome]:
        """As `Artist`."""
        put_right = partial(recover, self.engine, known_good=self._known_good)
        try:
            outcomes = draw_jobs(self.engine, drawings, put_right, helper.engine if helper else self._partner)
        except Exception as error:  # a device that has failed answers no question about a job either
            failure = classify(error)
            outcomes = [Outcome(failure, CLOCK.running_time(), NO_USAGE, (), batch=0) for _ in drawings]
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


def make_replicas(engines: Sequence[Engine], gpus_per_picture: str) -> list[Replica]:
    """Those who draw with these engines.

    Args:
        gpus_per_picture: as GPUS_PER_PICTURE.

    Raises:
        SettingsError: they cannot be paired.
    """
    if gpus_per_picture != "2":
        return [Replica(engine, takes_help=gpus_per_picture == "auto") for engine in engines]
    if len(engines) % 2:
        raise SettingsError(f"GPUS_PER_PICTURE: got 2; this worker draws with {len(engines)}")
    if any(engine.graphs is None for engine in engines if engine.device.type == "cuda"):
        raise SettingsError(
            "GPUS_PER_PICTURE: got 2; only graphs of passes are shared, and ACCELERATION, OFFLOAD, QUANTIZE or the "
            "memory allow none here"
        )
    return [Replica(first, second) for first, second in zip(engines[::2], engines[1::2], strict=True)]
