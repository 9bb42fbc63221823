"""Draws a batch of a job's pictures; when memory runs out, once more with less of it."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from worker.engine.decoder import low_memory
from worker.engine.device_errors import is_out_of_memory
from worker.engine.engine import Engine
from worker.engine.passes.draw import draw
from worker.engine.prompts.encode import PromptEncoder
from worker.engine.recovery import release_exception_memory
from worker.engine.steps import StepCounter
from worker.plan import Plan
from worker.request import GeneratedImage, Picture

log = logging.getLogger("worker")


def draw_batch(
    engine: Engine, plan: Plan, pictures: Sequence[Picture], prompts: PromptEncoder, steps: StepCounter
) -> list[GeneratedImage]:
    """These pictures of the plan's request, drawn at once.

    Raises:
        Exception: what went wrong; running out of memory only at the second time.
    """
    done = steps.done
    try:
        return draw(engine, plan, pictures, prompts, steps)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release_exception_memory(error)
    log.warning("out of memory: drawing once more, decoding by tiles")
    engine.repair()
    steps.done = done
    with low_memory(getattr(engine.pipeline, "vae", None)):
        return [replace(one, low_memory=True) for one in draw(engine, plan, pictures, prompts, steps)]
