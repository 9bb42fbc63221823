"""Jobs that are drawn together: what each wants, how far it is, and what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.clock import CLOCK
from worker.engine.engine import Engine
from worker.engine.meter import Meter, Stage, Usage
from worker.engine.prompts.encode import PromptEncoder
from worker.engine.prompts.warnings import list_prompt_warnings
from worker.engine.steps import OnStep, StepCounter
from worker.plan import Plan
from worker.request import GeneratedImage, Picture


@dataclass(frozen=True, eq=False)
class Drawing:
    """What one job wants of the engine.

    Attributes:
        on_step: called after each denoising step with the number done and the number in all, over all its pictures,
            and, if it wants previews, a function that makes one. What it raises ends this job and no other.
        on_picture: called with each picture, in order, as soon as it is there.
        deadline: in the clock's running time; checked at every step.
        check: called before anything of it is drawn, for each of its prompts, and for each token that a language model
            writes for it; what it raises ends this job.
    """

    plan: Plan
    on_step: OnStep
    on_picture: Callable[[GeneratedImage], None]
    deadline: float | None = None
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        error: why it has not all its pictures; None if it has.
        began: in the clock's running time.
        warnings: what of its prompts and LoRAs the model cannot use.
        batch: the most pictures that were drawn at once with one of its own.
        first: whether no job was drawn before, so that this one has paid for what is warm now.
    """

    error: Exception | None
    began: float
    usage: Usage
    warnings: Sequence[str]
    batch: int
    first: bool = False


def join_outcomes(parts: Sequence[Outcome]) -> Outcome:
    """What became of a job that was drawn in parts; the seconds of all of them together."""
    peaks = [part.usage.peak_bytes for part in parts if part.usage.peak_bytes is not None]
    return Outcome(
        next((part.error for part in parts if part.error is not None), None),
        min(part.began for part in parts),
        Usage(
            text_s=sum(part.usage.text_s for part in parts),
            denoise_s=sum(part.usage.denoise_s for part in parts),
            decode_s=sum(part.usage.decode_s for part in parts),
            peak_bytes=max(peaks, default=None),
        ),
        list(dict.fromkeys(warning for part in parts for warning in part.warnings)),
        max(part.batch for part in parts),
        any(part.first for part in parts),
    )


class DrawnJob:
    """One job while it is drawn.

    Attributes:
        drawing, plan, steps, prompts: its own.
        error: why it is not drawn any further; None while it is.
    """

    def __init__(self, engine: Engine, drawing: Drawing) -> None:
        """Nothing of it is drawn yet."""
        self.plan = drawing.plan
        self.drawing = drawing
        self.prompts = PromptEncoder(engine, drawing.plan)
        self.steps = StepCounter(drawing.plan, drawing.on_step, drawing.deadline)
        self.error: Exception | None = None
        self._engine = engine
        self._warnings: Sequence[str] = ()
        self._meter = Meter(engine.device)
        self._began: float | None = None
        self._batch = 0

    def begin_batch(self, pictures: int) -> None:
        """So many pictures are drawn at once now, one of its own among them."""
        self._began = self._began or CLOCK.running_time()
        self._batch = max(self._batch, pictures)
        self._meter.start()

    def start(self) -> None:
        """Look whether it is wanted, and can be drawn.

        Raises:
            InvalidInputError: a prompt has more tokens than this model reads in any time, or what the request puts
                together is known to fail.
        """
        self.drawing.check()
        self._engine.refusals.check(self.plan.request)
        self.prompts.check_lengths(self.drawing.check)
        self._warnings = list_prompt_warnings(self._engine, self.plan.request, self.drawing.check)

    def check(self) -> None:
        """Go on, if it is wanted and has time left; asked where no step is done.

        Raises:
            Exception: it is not, or has none.
        """
        self.drawing.check()
        self.steps.check_time()

    def warn(self, notes: Sequence[str]) -> None:
        """Its answer says these too."""
        self._warnings = list(dict.fromkeys([*self._warnings, *notes]))

    def lap(self, stage: Stage) -> None:
        """This stage has taken the time since the last lap."""
        self._meter.lap(stage)

    def outcome(self) -> Outcome:
        """What became of it."""
        return Outcome(
            self.error,
            self._began or CLOCK.running_time(),
            self._meter.read(),
            self._warnings,
            self._batch,
        )


@dataclass(frozen=True, eq=False)
class Item:
    """One picture of one job."""

    job: DrawnJob
    picture: Picture


def jobs_of(items: Sequence[Item]) -> list[DrawnJob]:
    """Whose these are, each once."""
    return list(dict.fromkeys(item.job for item in items))


def lap(items: Sequence[Item], stage: Stage) -> None:
    """This stage of theirs has taken the time since the last lap."""
    for job in jobs_of(items):
        job.lap(stage)


def tell_each(items: Sequence[Item], tell: Callable[[DrawnJob], None]) -> None:
    """Tell each job of a batch; one that wants no more, so raises something, is left out of what comes after.

    Raises:
        Exception: what the last one raised, if none wants more.
    """
    jobs = jobs_of(items)
    for job in jobs:
        if job.error is not None:
            continue
        try:
            tell(job)
        except Exception as error:
            if len(jobs) == 1:
                raise
            job.error = error
    if all(job.error is not None for job in jobs):
        raise jobs[-1].error  # type: ignore[misc]
