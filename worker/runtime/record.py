"""What the log says of a job once it is over: one line, with figures and names of fields, never what they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from worker.api.response import Timings
from worker.api.schema import spellings
from worker.clock import CLOCK
from worker.engine.drawing import Outcome
from worker.errors import InvalidInputError, WorkerError
from worker.plan import Plan
from worker.request import GeneratedImage

_CANONICAL = spellings()


@dataclass
class JobRecord:
    """One job's; what is not known, because it went wrong before, is left out.

    Attributes:
        code: of its failure; OK without one.
        fields: those that it gave, by their own names; unknown ones are left out.
        refused: those that were wrong.
        steps: of its first pass.
        references: pictures that its instruction spoke of.
        seed: of its first picture.
        batch: pictures drawn at once.
        first: whether nothing was drawn by this process before.
        bytes: of all its files.
        peak_gpu_bytes: the most that tensors took while it was drawn.
        retried: whether memory ran out and it was drawn once more.
        total_s: from when it came.
    """

    code: str = "OK"
    fields: list[str] = field(default_factory=list)
    refused: list[str] | None = None
    model: str | None = None
    task: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    references: int | None = None
    pictures: int | None = None
    seed: int | None = None
    batch: int | None = None
    first: bool | None = None
    timings: Timings | None = None
    bytes: int | None = None
    peak_gpu_bytes: int | None = None
    retried: bool | None = None
    total_s: float = 0.0
    _started: float = field(default_factory=CLOCK.running_time, repr=False)

    def note_input(self, given: object) -> None:
        """Keep the names of the fields that it gives."""
        names = given if isinstance(given, Mapping) else ()
        self.fields = _known(names)

    def note_plan(self, plan: Plan, model: str) -> None:
        """Keep what the plan says: its task, size, steps and seed."""
        first = plan.passes[0]
        self.model, self.task, self.steps = model, first.task, first.num_inference_steps
        self.width, self.height = plan.size
        self.references = len(plan.request.references)
        self.pictures = len(plan.request.pictures)
        self.seed = plan.request.pictures[0].seed

    def note_question(self, task: str, model: str) -> None:
        """Keep that it asks what the model is or can do, and nothing is drawn."""
        self.model, self.task = model, task

    def note_drawing(self, pictures: Sequence[GeneratedImage], outcome: Outcome) -> None:
        """Keep what drawing it has cost, if any of it was drawn."""
        if not outcome.batch:
            return
        self.retried = any(one.low_memory for one in pictures)
        self.first, self.batch = outcome.first, outcome.batch
        self.peak_gpu_bytes = outcome.usage.peak_bytes

    def note_failure(self, failure: WorkerError) -> None:
        """Keep the code that it has failed with."""
        self.code = failure.code
        if isinstance(failure, InvalidInputError):
            self.refused = _known([problem.partition(":")[0].split(".")[0] for problem in failure.problems])

    def seconds(self) -> float:
        """Seconds since it came."""
        return CLOCK.running_time() - self._started

    def figures(self) -> dict[str, Any]:
        """All that is known, by name; the timings beside the rest."""
        known = {name: value for name, value in asdict(self).items() if value is not None and name[0] != "_"}
        timings = known.pop("timings", {})
        return {**known, **timings, "total_s": round(self.seconds(), 3)}

    def summary(self) -> str:
        """The same for people, in a line."""
        if self.code != "OK":
            return f"failed: {self.code}" + (f" ({', '.join(self.refused)})" if self.refused else "")
        if self.pictures is None:
            return f"{self.task}; {self.seconds():.3g} s"
        stages = asdict(self.timings) if self.timings else {}
        spent = ", ".join(f"{name.removesuffix('_s')} {value:g}" for name, value in stages.items())
        drawn = f"{self.pictures} x {self.width}x{self.height}, {self.steps} steps, seed {self.seed}"
        return f"{self.task}: {drawn}; {self.seconds():.3g} s: {spent}"


def _known(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    return sorted({_CANONICAL[name] for name in names if name in _CANONICAL})
