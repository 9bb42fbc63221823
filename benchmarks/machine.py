"""Where a benchmark runs: GPU, CPU and versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import Machine

PACKAGES = ("torch", "diffusers", "transformers", "runpod")


def describe_machine() -> Machine:
    """This one. Asks the driver's tool for the GPU, so that nobody needs torch for it."""
    versions = {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return Machine(_gpu_name(), _cpu_name(), len(os.sched_getaffinity(0)), versions)


def _gpu_name() -> str | None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return names.splitlines()[0].strip() if names.strip() else None


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
