"""What the simulation found, as values, and the file that keeps them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.scaling.measured import Figure
from benchmarks.scaling.simulate import Summary

FILE = Path(__file__).with_name("findings.json")
VALIDATION = Path(__file__).with_name("validation.json")


@dataclass(frozen=True)
class Finding:
    """One run.

    Attributes:
        load, shape, policy: as the scenarios name them.
        rate: pictures a second.
        varied: which assumption is another here; empty for none.
    """

    load: str
    shape: str
    rate: float
    policy: str
    max_workers: int
    active: int
    summary: Summary
    varied: str = ""


@dataclass(frozen=True)
class Findings:
    """All of them.

    Attributes:
        gpu: on which the service times were measured.
        paces: by JOBS_AT_ONCE, the seconds for each picture that one worker takes of jobs that wait.
    """

    date: str
    gpu: str
    figures: tuple[Figure, ...]
    paces: Mapping[int, float]
    runs: tuple[Finding, ...]

    def find(self, load: str, policy: str, shape: str = "steady") -> Summary:
        """What came of one run without variation."""
        wanted = (load, policy, shape, "")
        return next(one.summary for one in self.runs if (one.load, one.policy, one.shape, one.varied) == wanted)


@dataclass(frozen=True)
class Comparison:
    """The same jobs through RunPod's SDK and through the simulation; delays in seconds."""

    at_once: int
    rate: float
    jobs: int
    measured: Sequence[float]
    simulated: Sequence[float]


@dataclass(frozen=True)
class Validation:
    """The simulation beside the real SDK.

    Attributes:
        draw_s: for which a job sleeps.
        beside_s: what a lone job takes beside it, apart from waits of the SDK.
    """

    date: str
    draw_s: float
    beside_s: float
    comparisons: tuple[Comparison, ...]


def write_findings(findings: Findings | Validation, file: Path) -> None:
    """Keep them."""
    file.write_text(json.dumps(asdict(findings), indent=1, allow_nan=False) + "\n")


def read_findings() -> Findings:
    """Those that were kept."""
    kept: dict[str, Any] = json.loads(FILE.read_text())
    return Findings(
        date=kept["date"],
        gpu=kept["gpu"],
        figures=tuple(Figure(**one) for one in kept["figures"]),
        paces={int(at_once): pace for at_once, pace in kept["paces"].items()},
        runs=tuple(Finding(**{**one, "summary": Summary(**one["summary"])}) for one in kept["runs"]),
    )


def read_validation() -> Validation:
    """That which was kept."""
    kept: dict[str, Any] = json.loads(VALIDATION.read_text())
    return Validation(**{**kept, "comparisons": tuple(Comparison(**one) for one in kept["comparisons"])})
