"""What the GPU says, through nvidia-smi: its name and the memory in use, whoever uses it."""

import shutil
import subprocess
import sys
import time

MAX_RELEASE_S = 30.0


def has_cuda() -> bool:
    """Whether torch can use CUDA; asked in another process, so that this one stays without."""
    asked = [sys.executable, "-c", "import torch; raise SystemExit(not torch.cuda.is_available())"]
    return subprocess.run(asked, capture_output=True, timeout=120).returncode == 0


def name() -> str:
    """For example NVIDIA H100 80GB HBM3."""
    return _query("name")


def used_mib() -> int | None:
    """Memory in use on the first GPU, in MiB; None without nvidia-smi."""
    return int(_query("memory.used")) if shutil.which("nvidia-smi") else None


def wait_for_release(before_mib: int | None) -> None:
    """Wait until the memory of what has been killed is free again, for half a minute at most."""
    deadline = time.monotonic() + MAX_RELEASE_S
    while before_mib is not None and (used_mib() or 0) > before_mib and time.monotonic() < deadline:
        time.sleep(0.2)


def _query(what: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
