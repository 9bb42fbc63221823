"""What the first job would otherwise wait for, done before it: compiling, where the owner wants passes compiled.

No picture is drawn for its kernels' and graphs' sake. Whatever waits for a worker waits for its start, too, and the
start would be longer by what the first picture is shorter, and by drawing one for nobody. What can be had while Python
imports is in warm_device.py.
"""

import logging
import time
from dataclasses import replace

from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.plan import make_plan
from worker.request import self_test_request

_PICTURES, _STEPS = 3, 8  # enough of both for passes to be worth compiling

log = logging.getLogger("worker")


def warm_up(engine: Engine) -> None:
    """Have passes of the model's own size compiled, one picture at once."""
    if engine.graphs is None or not engine.graphs.compiles:
        return
    model, started = engine.capabilities, time.perf_counter()
    request = self_test_request(model, (model.width, model.height))
    plan = make_plan(replace(request, num_inference_steps=_STEPS))
    for _ in range(_PICTURES):
        generate(engine, plan, lambda *_: None)
    engine.graphs.wait()
    generate(engine, plan, lambda *_: None)
    seconds = time.perf_counter() - started
    log.info("warm after %.1f s: passes of %dx%d are compiled", seconds, model.width, model.height)
