"""What was measured, as values, and the files that keep them: one for each machine, one entry for each scene."""

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        gpu: its name; None without one.
        cores: of the CPU, those that this process may use.
        versions: of Python and of the packages that take the time.
    """

    gpu: str | None
    cpu: str
    cores: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Quality:
    """How near pictures are to those of the scene's first baseline, for the same seeds and settings; the worst of them.

    Attributes:
        psnr_db: peak signal to noise ratio in decibels; None where the pictures are the same.
        largest_difference: of any value of any pixel, of 255.
        contrast: the least standard deviation of a baseline's picture, of 255; below 1, it shows nothing to compare.
    """

    psnr_db: float | None
    largest_difference: int
    contrast: float


@dataclass(frozen=True)
class Floor:
    """What the same work would take if every operation ran at the rate of a large matrix product.

    Attributes:
        work_tflop: of one job, counted while the first baseline drew.
        matmul_tflops: measured in the same process, in `dtype`, per second.
        copy_tb_s: read and written by a copy on the device, terabytes per second.
    """

    work_tflop: float
    matmul_tflops: float
    copy_tb_s: float
    dtype: str

    @property
    def seconds(self) -> float:
        """For one job."""
        return self.work_tflop / self.matmul_tflops


@dataclass(frozen=True)
class Case:
    """One way to do what the scene is about.

    Attributes:
        seconds: of every round, in order; the warm-up is not among them.
        against: the cases that it is compared with; the first is the one that counts.
        part_of: the case whose time this is a part of; None for a whole.
        load_s: until it could draw; None where that is no part of it.
        first_s, second_s: the first job after that, which warms up, and the second.
        peak_bytes: the most that its tensors took on the GPU; None without one.
        notes: what else was seen.
    """

    name: str
    seconds: tuple[float, ...]
    against: tuple[str, ...] = ()
    part_of: str | None = None
    load_s: float | None = None
    first_s: float | None = None
    second_s: float | None = None
    peak_bytes: int | None = None
    quality: Quality | None = None
    notes: str = ""

    @property
    def median(self) -> float:
        """Of its seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class SceneResult:
    """One scene on one machine.

    Attributes:
        scene: its name.
        subject: what was drawn or done, in a few words.
        pictures: in each job; 0 where the seconds are not those of pictures.
        date: in UTC, by ISO 8601.
    """

    scene: str
    subject: str
    pictures: int
    date: str
    machine: Machine
    cases: tuple[Case, ...]
    floor: Floor | None = None

    def case(self, name: str) -> Case:
        """The case of this name."""
        return next(one for one in self.cases if one.name == name)

    def ratios(self) -> dict[tuple[str, str], float]:
        """By the names of a case and of one that it is compared with: the share of its time that it takes."""
        return {(one.name, other): one.median / self.case(other).median for one in self.cases for other in one.against}


@dataclass(frozen=True)
class Report:
    """The scenes of one kind of machine, by name."""

    scenes: Mapping[str, SceneResult] = field(default_factory=dict)

    def with_scene(self, result: SceneResult) -> "Report":
        """The same with this scene's entry new or replaced."""
        return Report({**self.scenes, result.scene: result})


def read(path: Path) -> Report:
    """Read a file of results; an empty report if there is none."""
    if not path.exists():
        return Report()
    kept = json.loads(path.read_text())
    return Report({name: _scene_result(entry) for name, entry in kept["scenes"].items()})


def add(path: Path, result: SceneResult) -> None:
    """Put a scene's result into the file, which is made if there is none; whoever reads it never sees half of it."""
    report = read(path).with_scene(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(report), indent=1, allow_nan=False) + "\n")
    os.replace(unfinished, path)


def _scene_result(entry: dict[str, Any]) -> SceneResult:
    machine, floor = Machine(**entry.pop("machine")), entry.pop("floor")
    cases = tuple(_case(**one) for one in entry.pop("cases"))
    return SceneResult(**entry, machine=machine, cases=cases, floor=Floor(**floor) if floor else None)


def _case(quality: dict[str, Any] | None, seconds: list[float], against: list[str], **rest: Any) -> Case:
    judged = Quality(**quality) if quality else None
    return Case(**rest, seconds=tuple(seconds), against=tuple(against), quality=judged)
