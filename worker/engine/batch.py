"""Draws a batch of pictures; when memory runs out for a single one, once more with less of it."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from worker.engine.decoder import low_memory
from worker.engine.device_errors import is_out_of_memory
from worker.engine.drawing import Item
from worker.engine.engine import Engine
from worker.engine.passes.draw import draw
from worker.engine.recovery import release_exception_memory
from worker.errors import OutOfMemoryError
from worker.request import GeneratedImage

log = logging.getLogger("worker")


def draw_batch(engine: Engine, items: Sequence[Item]) -> list[GeneratedImage]:
    """These pictures, drawn at once; the second time without graphs, which keep memory.

    Raises:
        OutOfMemoryError: at the second time, too, and the job brought several pictures to look at.
        Exception: what else went wrong; for a single picture, running out of memory only at the second time.
    """
    steps = items[0].job.steps
    done = steps.done
    try:
        return draw(engine, items)
    except Exception as error:
        if len(items) > 1 or not is_out_of_memory(error):
            raise
        release_exception_memory(error)
    log.warning("out of memory: drawing once more, decoding by tiles")
    engine.repair()
    steps.done = done
    with low_memory(getattr(engine.pipeline, "vae", None)), engine.without_graphs():
        try:
            return [replace(one, low_memory=True) for one in draw(engine, items)]
        except Exception as error:
            if is_out_of_memory(error) and (count := len(items[0].job.plan.request.references)) > 1:
                raise OutOfMemoryError(_explain_references(count)) from error
            raise


def _explain_references(count: int) -> str:
    """Why there may be less memory than for other jobs: the plan keeps none free for so many pictures."""
    return f"the accelerator ran out of memory, with {count} pictures in images; bring fewer, or ask for fewer pixels"
