"""The scenes with several GPUs: this worker with one, two, four and so on, in turns, in one process.

Without a GPU engines on the CPU stand for them, which shows that the scene plays and nothing else.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.contestants import Contestant, load_ours, name_ours
from benchmarks.pictures import Entry, take_turns
from benchmarks.results import Case
from benchmarks.scenes import Scene

Settings = Mapping[str, str]

WITHOUT_A_GPU = 2  # engines


def play(scene: Scene, model: Path, rounds: int, ours: Sequence[Settings]) -> list[Case]:
    """Measure all ways with each of these settings; pictures are compared with the first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    entries = [Entry(one, device) for settings in ours for one in list_ways(scene, model, settings)]
    take_turns(entries, scene, rounds)
    return [entry.report(entries[0]) for entry in entries]


def list_ways(scene: Scene, model: Path, settings: Settings) -> list[Contestant]:
    """With one GPU, and with each number of them that the scene is about."""
    divided = [{"GPUS": str(number)} for number in list_numbers()]
    several = divided if scene.pictures > 1 else [{"GPUS": "2", "GPUS_PER_PICTURE": "2"}]
    ways = [{**one, **scene.settings, **settings} for one in ({"GPUS": "1"}, *several)]
    alone = name_ours(ways[0])
    return [
        Contestant(name_ours(way), partial(load_ours, scene, model, way), (alone,) if way is not ways[0] else ())
        for way in ways
    ]


def list_numbers() -> Sequence[int]:
    """2, 4, 8 GPUs and so on, and all that are there.

    Raises:
        RuntimeError: there is one.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else WITHOUT_A_GPU
    if there == 1:
        raise RuntimeError("this scene needs several GPUs, and this machine has one")
    return sorted({there, *(2**times for times in range(1, there.bit_length()))})
