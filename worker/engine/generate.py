"""Plans -> pictures, each from its own seed. Nothing here knows where pictures go.

Jobs whose plans have one batch key are drawn together, a batch of their pictures at a time. What goes wrong with one
ends that one: a batch that fails is drawn again in parts, until it is known whose fault it is.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import groupby, islice

from worker.engine.batch import draw_batch
from worker.engine.device_errors import is_device_fault, is_out_of_memory
from worker.engine.drawing import Drawing, DrawnJob, Item, Outcome, jobs_of
from worker.engine.engine import Engine
from worker.engine.recovery import release_exception_memory
from worker.engine.steps import OnStep
from worker.errors import JobCancelledError, JobTimeoutError
from worker.plan import Plan
from worker.request import GeneratedImage

log = logging.getLogger("worker")

Recover = Callable[[Exception], Exception]


def draw_jobs(
    engine: Engine, drawings: Sequence[Drawing], recover: Recover, helper: Engine | None = None
) -> list[Outcome]:
    """Draw these jobs, whose plans have one batch key, as many pictures at once as pay; what became of each.

    Args:
        recover: called with what has ended a job, when nothing is attached any more; puts the engine back as it was,
            and says what the error means for the job.
        helper: an engine of the same model on another device, that does nothing else meanwhile.
    """
    with engine.drawing(helper):
        jobs = [DrawnJob(engine, drawing) for drawing in drawings]
        for job in jobs:
            _attempt(job.start, [job])
        started = [job for job in jobs if job.error is None]
        _attempt(lambda: _draw_all(engine, started, helper), started)
    for job in started:
        if job.error is not None:
            job.error = recover(job.error)
    return [job.outcome() for job in jobs]


def generate(engine: Engine, plan: Plan, on_step: OnStep, deadline: float | None = None) -> list[GeneratedImage]:
    """The pictures of one job, drawn alone, in order.

    Args:
        on_step, deadline: as in `Drawing`.

    Raises:
        JobTimeoutError: the deadline has passed.
        ModelError: a LoRA cannot be loaded or does not fit.
        InvalidInputError: a prompt has more tokens than this model reads in any time.
    """
    pictures: list[GeneratedImage] = []
    drawing = Drawing(plan, on_step, pictures.append, deadline)
    (outcome,) = draw_jobs(engine, [drawing], recover=lambda error: error)
    if outcome.error is not None:
        raise outcome.error
    return pictures


@contextmanager
def _attach(engine: Engine, jobs: Sequence[DrawnJob]) -> Iterator[None]:
    """What the request of these jobs has added to the model of this engine, inside the `with`."""
    request = jobs[0].plan.request
    with ExitStack() as attached:
        attached.callback(engine.release)
        attached.enter_context(engine.loras.activate(request.loras, partial(_check_wanted, jobs)))
        if engine.ip_adapter is not None:
            attached.enter_context(engine.ip_adapter.activate(request.image_prompt))
        yield


@contextmanager
def _attach_to_helper(helper: Engine, jobs: Sequence[DrawnJob]) -> Iterator[None]:
    """The same; without the memory for it this one does not help, as it does not compute the same."""
    with ExitStack() as attached:
        try:
            attached.enter_context(_attach(helper, jobs))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            release_exception_memory(error)
            helper.repair()
            log.warning("out of memory on %s for what the job adds to the model: it does not help", helper.device)
        yield


def _draw_all(engine: Engine, jobs: Sequence[DrawnJob], helper: Engine | None) -> None:
    if not jobs:
        return
    items = [Item(job, picture) for job in jobs for picture in job.plan.request.pictures]
    with _attach(engine, jobs), nullcontext() if helper is None else _attach_to_helper(helper, jobs):
        for job in jobs:
            job.warn(engine.loras.list_warnings(job.plan.request.loras))
        for batch in _batches(items, lambda: engine.batch_size.choose(jobs[0].plan)):
            wanted = [item for item in batch if item.job.error is None]
            if wanted and any(job.error is not None for job in jobs):
                engine.repair()
            _draw(engine, wanted)


def _check_wanted(jobs: Sequence[DrawnJob]) -> None:
    """Go on, if one of these is still wanted."""
    for job in jobs:
        _attempt(job.drawing.check, [job])
    errors = [job.error for job in jobs if job.error is not None]
    if len(errors) == len(jobs):
        raise errors[0]


def _batches(items: Sequence[Item], max_batch: Callable[[], int]) -> Iterator[Sequence[Item]]:
    """Split into batches of at most `max_batch` each, in their order; embeddings in a batch have one shape."""
    for _, alike in groupby(items, lambda item: item.job.prompts.batch_shape(item.picture.prompt)):
        while batch := list(islice(alike, max_batch())):
            yield batch


def _draw(engine: Engine, items: Sequence[Item]) -> None:
    """Draw these pictures at once, those of jobs that have failed meanwhile left out; if that fails, in parts."""
    items = [item for item in items if item.job.error is None]
    jobs = jobs_of(items)
    if not jobs:
        return
    done = [job.steps.done for job in jobs]
    try:
        pictures = draw_batch(engine, items)
    except Exception as error:
        if not (parts := _split(engine, items, error)):
            _blame(jobs, error)
            return
        release_exception_memory(error)
    else:
        for item, picture in zip(items, pictures, strict=True):
            if item.job.error is None:
                _attempt(partial(item.job.drawing.on_picture, picture), [item.job])
        return
    for job, steps in zip(jobs, done, strict=True):
        job.steps.done = steps
    for part in parts:
        engine.repair()
        _draw(engine, part)


def _split(engine: Engine, items: Sequence[Item], error: Exception) -> list[Sequence[Item]]:
    """The parts in which a batch that failed is drawn once more; none if nothing would come of it."""
    if is_device_fault(error) or isinstance(error, (JobCancelledError, JobTimeoutError)):
        return []
    if is_out_of_memory(error) and len(items) > 1:
        engine.batch_size.note_out_of_memory(items[0].job.plan, len(items))
        half = (len(items) + 1) // 2
        return [items[:half], items[half:]]
    jobs = jobs_of(items)
    return [[item for item in items if item.job is job] for job in jobs] if len(jobs) > 1 else []


def _attempt(action: Callable[[], None], jobs: Sequence[DrawnJob]) -> None:
    try:
        action()
    except Exception as error:
        _blame(jobs, error)


def _blame(jobs: Sequence[DrawnJob], error: Exception) -> None:
    """This has ended these jobs, if nothing has before."""
    for job in jobs:
        job.error = job.error or error
