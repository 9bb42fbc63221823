"""Plays one scene in this process, and adds what was seen to the file of results. `python -m benchmarks` calls it."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import results
from benchmarks.machine import describe_machine
from benchmarks.models import prepare_model, title_of
from benchmarks.results import Case, Floor, SceneResult
from benchmarks.scenes import Scene, Size, find_scene


@dataclass(frozen=True)
class Task:
    """What is to be played.

    Attributes:
        scene: its name.
        models: the folder in which models are made.
        out: the file of results.
        rounds: None for the scene's own.
        ours: the settings that this worker is played with, once with each.
        keep_cache: whether the scene about starting leaves the system's cache of files as it is.
    """

    scene: str
    size: Size
    models: str
    out: str
    rounds: int | None
    ours: list[dict[str, str]]
    keep_cache: bool = False


def play(task: Task) -> SceneResult:
    """Measure it."""
    scene = find_scene(task.scene).fit(task.size)
    cases, floor = _measure(scene, task, task.rounds or scene.rounds)
    return SceneResult(
        scene=scene.name,
        subject=_describe(scene, task.size),
        pictures=scene.pictures if scene.kind in ("pictures", "gpus") else 0,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        cases=tuple(cases),
        floor=floor,
    )


def _measure(scene: Scene, task: Task, rounds: int) -> tuple[list[Case], Floor | None]:
    """Imports what the scene needs alone: a scene about starting must not have torch's files mapped."""
    if scene.kind == "between":
        from benchmarks import waiting_jobs

        return waiting_jobs.play_between(rounds), None
    if scene.kind == "overhead":
        from benchmarks import overhead

        return overhead.play(scene, rounds), None
    model = prepare_model(scene.model, task.size, Path(task.models))
    if scene.kind == "pictures":
        from benchmarks import pictures

        return pictures.play(scene, model, rounds, task.ours)
    if scene.kind == "jobs":
        from benchmarks import waiting_jobs

        return waiting_jobs.play_jobs(scene, model, rounds, task.ours), None
    if scene.kind == "gpus":
        from benchmarks import several_gpus

        return several_gpus.play(scene, model, rounds, task.ours), None
    if scene.kind == "load":
        from benchmarks import loading

        return loading.play(scene, model, rounds, task.ours), None
    from benchmarks import cold

    return cold.play(scene, model, rounds, task.ours, task.keep_cache), None


def _describe(scene: Scene, size: Size) -> str:
    if scene.kind == "between":
        return "jobs that sleep"
    if scene.kind == "overhead":
        return "a picture that is there already"
    if scene.kind == "load":
        return title_of(scene.model, size)
    scheduler = f"{scene.scheduler}, " if scene.scheduler else ""
    return f"{title_of(scene.model, size)}, {scene.side}x{scene.side}, {scheduler}{scene.steps} steps"


if __name__ == "__main__":
    told = Task(**json.loads(sys.argv[1]))
    results.add(Path(told.out), play(told))
