"""What runs have shown, as files of this repository: one for GPUs, one for the stand-in."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from examples.cuda_and_fork.harness.cases import CASES, FOLDER

CUDA, STAND_IN = "cuda", "stand-in"  # the two devices


@dataclass(frozen=True)
class Seen:
    """What a case showed. `held_mib` is GPU memory in MiB, None where there is no GPU."""

    version: str
    tree: str
    loads: int
    cuda_in: str
    answer: str
    error: str
    held_mib: int | None = None

    def facts(self) -> tuple[str | int, ...]:
        """What is the same in every run on such a device. Memory and versions of what is not pinned may differ."""
        return self.tree, self.loads, self.cuda_in, self.answer, self.error


@dataclass(frozen=True)
class Call:
    """A call in a parent: does torch say that CUDA is initialised, and what does a forked child get."""

    call: str
    initialised: bool
    child: str


@dataclass(frozen=True)
class Results:
    """One run: where it ran (`on` names the GPU or the stand-in), the versions there, and each case by its name."""

    on: str
    versions: Mapping[str, str]
    cases: Mapping[str, Seen]
    calls: tuple[Call, ...] = field(default=())


def path_of(device: str) -> Path:
    """The file with the results that are expected on this kind of device."""
    return FOLDER / "results" / f"{device}.json"


def read(path: Path) -> Results:
    """Read a file of results."""
    kept = json.loads(path.read_text())
    cases = {name: Seen(**seen) for name, seen in kept["cases"].items()}
    return Results(kept["on"], kept["versions"], cases, tuple(Call(**call) for call in kept["calls"]))


def write(results: Results, path: Path) -> None:
    """Write a file of results; whoever reads meanwhile, or after an end halfway, finds the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(results), indent=2, ensure_ascii=False) + "\n")
    os.replace(new, path)


def merge(seen: Results, path: Path) -> Results:
    """What is seen, and from this file what was not run this time, if it comes from the same place and versions.

    In the order of CASES, and without what is none of them any more.
    """
    if not path.exists() or (kept := read(path)).on != seen.on or kept.versions != seen.versions:
        return seen
    found = {**kept.cases, **seen.cases}
    cases = {case.name: found[case.name] for case in CASES if case.name in found}
    return Results(seen.on, seen.versions, cases, seen.calls or kept.calls)


def find_differences(seen: Results, path: Path) -> list[str]:
    """One line for each case, and for the calls, that showed something else than this file tells."""
    if not path.exists():
        return [f"{path.name} is not there yet: nothing to compare with"]
    expected, lines = read(path), []
    for name, one in seen.cases.items():
        other = expected.cases.get(name)
        if other is None or one.facts() != other.facts():
            lines.append(f"{name}: got {one.facts()}; expected {other.facts() if other else 'nothing yet'}")
    if seen.calls and seen.calls != expected.calls:
        lines.append(f"calls: got {seen.calls}; expected {expected.calls}")
    return lines
