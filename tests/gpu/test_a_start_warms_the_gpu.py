"""What a start has a GPU compute opens what the first picture would wait for, and keeps next to no memory of torch."""

import re
import subprocess
import sys

COMPUTES = """
import threading
from pathlib import Path
import torch
from worker.engine.warm_device import begin_to_warm

def tell(when):
    torch.cuda.empty_cache()
    is_open = "libcudnn_engines" in Path("/proc/self/maps").read_text()
    print(when, "cuDNN's engines are", "open," if is_open else "closed,", torch.cuda.memory_reserved(), "bytes")

torch.zeros(1, device="cuda").add_(1)
tell("before")
begin_to_warm()
[thread.join() for thread in threading.enumerate() if thread.name == "warm-device"]
tell("after")
"""


def test_what_the_first_picture_would_wait_for_is_open() -> None:
    said = subprocess.run([sys.executable, "-c", COMPUTES], capture_output=True, text=True, check=True).stdout
    before, after = (int(kept) for kept in re.findall(r"(\d+) bytes", said))
    assert "before cuDNN's engines are closed" in said and "after cuDNN's engines are open" in said
    assert after - before < 100 << 20
