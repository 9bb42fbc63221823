"""The scene about loading: a model from files that the system has in memory to weights on the device, in turns.

`instanttensor`, where it is installed, reads the files of weights alone: what a loader of another kind would take.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import PLAIN, load_ours, load_plain, name_ours
from benchmarks.results import Case
from benchmarks.scenes import Scene

OTHER = "`instanttensor`, the files alone"
WARM_UPS = 1  # loads that are not measured: they bring the files into memory


def play(scene: Scene, model: Path, rounds: int, ours: Sequence[Mapping[str, str]]) -> list[Case]:
    """Load with each, and let go of it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loads: dict[str, Callable[[], Any]] = {PLAIN: lambda: load_plain(scene, model, device)}
    for settings in ours:
        loads[name_ours(settings)] = lambda settings=settings: load_ours(  # type: ignore[misc]
            scene, model, {"WARM_UP": "off", **settings}
        )
    if device.type == "cuda" and find_spec("instanttensor"):
        loads[OTHER] = lambda: read_files(model, device)
    seconds: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(WARM_UPS + rounds):
        for name, load in loads.items():
            taken = clock(load, device)
            if number >= WARM_UPS:
                seconds[name].append(taken)
    size = sum(file.stat().st_size for file in list_files(model))
    return [report(name, taken, size) for name, taken in seconds.items()]


def clock(load: Callable[[], Any], device: torch.device) -> float:
    """Seconds until all is there."""
    started = time.perf_counter()
    loaded = load()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - started
    if worker := getattr(loaded, "worker", None):
        worker.close()
    del loaded, worker
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return taken


def list_files(model: Path) -> list[Path]:
    """Those with weights."""
    return sorted(model.rglob("*.safetensors"))


def read_files(model: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """All weights of these files, on the device."""
    from instanttensor import BackendPolicy, safe_open  # type: ignore[import-not-found]

    tensors: dict[str, torch.Tensor] = {}
    for file in list_files(model):
        # Else it reads past what the system has in memory.
        how = {"framework": "pt", "device": device.index or 0, "backend": BackendPolicy.BUFFERED}
        with safe_open(str(file), **how) as opened:
            tensors |= {f"{file.parent.name}.{name}": tensor for name, tensor in opened.tensors()}
    return tensors


def report(name: str, seconds: Sequence[float], size: int) -> Case:
    """One of them, with what it comes to."""
    rate = size / statistics.median(seconds)
    notes = f"{size / 1e9:.3g} GB, {rate / 1e9:.3g} GB/s"
    return Case(name, tuple(seconds), (PLAIN,) if name != PLAIN else (), notes=notes)
