"""What a start has a GPU compute opens the libraries that the first picture would wait for."""

import re
import subprocess
import sys

COMPUTES = """
import torch
from pathlib import Path
from worker.engine.warm_device import begin_to_warm
def opened():
    return {name for name in ("cudnn_engines", "cublasLt") if f"lib{name}" in Path("/proc/self/maps").read_text()}
torch.zeros(1, device="cuda").add_(1)
before = torch.cuda.memory_reserved()
import threading
begin_to_warm()
[thread.join() for thread in threading.enumerate() if thread.name == "warm-device"]
torch.cuda.empty_cache()
print("opened", *sorted(opened()))
print("kept", torch.cuda.memory_reserved() - before)
"""


def test_libraries_are_open_and_next_to_no_memory_is_kept() -> None:
    said = subprocess.run([sys.executable, "-c", COMPUTES], capture_output=True, text=True, check=True).stdout
    assert "opened cublasLt cudnn_engines" in said
    kept = re.search(r"kept (\d+)", said)
    assert kept and int(kept[1]) < 100 << 20
