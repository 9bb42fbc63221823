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
from worker.request import GeneratedImage

log = logging.getLogger("worker")


def draw_batch(engine: Engine, items: Sequence[Item]) -> list[GeneratedImage]:
    """These pictures, drawn at once; the second time without graphs, which keep memory.

    Raises:
        Exception: what went wrong; for a single picture, running out of memory only at the second time.
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
        return [replace(one, low_memory=True) for one in draw(engine, items)]
