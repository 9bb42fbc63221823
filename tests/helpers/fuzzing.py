"""How long the tests that make up their own input go on: a fixed and repeatable number of examples, or much longer.

`HYPOTHESIS_PROFILE=long` (`make fuzz`) takes other examples in each run, and many times as many.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "repeatable")
TIMES_AS_LONG = {"repeatable": 1, "long": 50}[PROFILE]

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile(
    "long", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def examples(count: int) -> Callable[[Any], Any]:
    """`@examples(300)` above `@given`: so many in `make test`, more in `make fuzz`, which selects what is marked so."""

    def marked(test: Any) -> Any:
        return pytest.mark.fuzz(settings(max_examples=count * TIMES_AS_LONG)(test))

    return marked
