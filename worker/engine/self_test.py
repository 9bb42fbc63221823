"""Proves that an engine still draws: health is shown by doing, not by asking."""

from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.plan import make_plan
from worker.request import self_test_request


def self_test(engine: Engine) -> None:
    """Draw a small picture that nobody sees.

    Raises:
        Exception: whatever keeps this engine from drawing.
    """
    for _ in generate(engine, make_plan(self_test_request(engine.capabilities)), lambda *_: None):
        pass
