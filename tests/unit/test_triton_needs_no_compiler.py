"""The image brings Triton's launcher built, so that a worker can compile passes where there is no C compiler."""

import re
from pathlib import Path

from builder.build_launcher import LAUNCHER
from worker.engine.denoiser import compiled

ROOT = Path(__file__).parents[2]


def test_the_worker_looks_where_the_image_puts_it() -> None:
    assert compiled.LAUNCHER == LAUNCHER
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"python /build/build_launcher\.py.*?purge .*? gcc", dockerfile, re.DOTALL)
