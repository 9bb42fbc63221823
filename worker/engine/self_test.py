"""Proves that an engine still draws: health is shown by doing, not by asking."""

from worker.clock import CLOCK
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.plan import Plan, make_plan
from worker.request import GeneratedImage, self_test_request

MAX_SELF_TEST_S = 60.0  # looked at after each step


def self_test(engine: Engine, size: tuple[int, int] | None = None) -> tuple[Plan, list[GeneratedImage]]:
    """Draw a request that is known to be good: a small picture that nobody sees. It, with its plan.

    Args:
        size: to draw at, in pixels; a small one if left out.

    Raises:
        JobTimeoutError: it takes so long that nothing is proved.
        Exception: whatever keeps this engine from drawing.
    """
    plan = make_plan(self_test_request(engine.capabilities, size))
    return plan, generate(engine, plan, lambda *_: None, CLOCK.running_time() + MAX_SELF_TEST_S)
