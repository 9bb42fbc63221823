"""The scenes with several GPUs: this worker with one and with several, in turns, in one process.

Without a GPU engines on the CPU stand for them, which shows that the scene plays and nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.contestants import Contestant, load_ours, name_ours
from benchmarks.pictures import Entry, take_turns
from benchmarks.results import Case
from benchmarks.scenes import Scene

Settings = Mapping[str, str]

WITHOUT_A_GPU = 2  # engines


def play(scene: Scene, model: Path, rounds: int, ours: Sequence[Settings]) -> list[Case]:
    """Measure both ways with each of these settings; pictures are compared with the first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    entries = [Entry(one, device) for settings in ours for one in list_ways(scene, model, settings)]
    take_turns(entries, scene, rounds)
    return [entry.report(entries[0]) for entry in entries]


def list_ways(scene: Scene, model: Path, settings: Settings) -> list[Contestant]:
    """With one GPU, and with as many as the scene is about."""
    several = {"GPUS": "2", "GPUS_PER_PICTURE": "2"} if scene.pictures == 1 else {"GPUS": str(count_gpus())}
    ways = [{**one, **scene.settings, **settings} for one in ({"GPUS": "1"}, several)]
    alone, together = map(name_ours, ways)
    return [
        Contestant(alone, lambda: load_ours(scene, model, ways[0])),
        Contestant(together, lambda: load_ours(scene, model, ways[1]), (alone,)),
    ]


def count_gpus() -> int:
    """Those that are there."""
    return torch.cuda.device_count() if torch.cuda.is_available() else WITHOUT_A_GPU
