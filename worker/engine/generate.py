"""Plan -> pictures, one after the other, each from its own seed. Nothing here knows where pictures go."""

from collections.abc import Generator
from contextlib import ExitStack

from worker.engine.batch import draw_batch
from worker.engine.engine import Engine
from worker.engine.meter import Meter
from worker.engine.prompts.encode import PromptEncoder
from worker.engine.steps import OnStep, StepCounter
from worker.plan import Plan
from worker.request import GeneratedImage


def generate(
    engine: Engine, plan: Plan, on_step: OnStep, deadline: float | None = None, meter: Meter | None = None
) -> Generator[GeneratedImage, None, None]:
    """Draw the request's pictures, in order.

    One picture is drawn at a time: it then never depends on its neighbours in a batch, and can be encoded while the
    next is drawn.

    Args:
        on_step: called after each denoising step with the number done and the number in all, over all pictures, and,
            if the request wants previews, a function that makes one.
        deadline: in the clock's running time; checked at every step.
        meter: of what it costs.

    Raises:
        JobTimeoutError: the deadline has passed.
        ModelError: a LoRA cannot be loaded or does not fit.
        InvalidInputError: a prompt has more tokens than this model reads in any time.
    """
    request = plan.request
    prompts = PromptEncoder(engine, request)
    prompts.check_lengths()
    steps = StepCounter(plan, on_step, deadline, meter or Meter(engine.device))
    with ExitStack() as attached:
        attached.callback(engine.release)
        attached.enter_context(engine.loras.activate(request.loras))
        if engine.ip_adapter is not None:
            attached.enter_context(engine.ip_adapter.activate(request.image_prompt))
        for picture in request.pictures:
            yield from draw_batch(engine, plan, [picture], prompts, steps)
