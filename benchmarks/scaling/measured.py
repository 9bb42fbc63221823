"""What the simulation is fed with: measured where the benchmark's results have it, else measured by hand, else assumed.

What was measured by hand was so on one H200 (torch 2.11, diffusers 0.42.1), before the benchmark had a scene for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.results import Case, Report, SceneResult
from benchmarks.scaling.service import Service

ONE, COLD = "sd15-1", "cold"  # scenes
SEVERAL = {4: "sd15-4", 8: "gpus-8"}  # so many pictures at once
OURS = "this worker"  # the names of its cases begin so
GRAPHS = f"{OURS}, `ACCELERATION=graphs`"
MODEL = "Stable Diffusion 1.5, 512x512, 50 steps, `ACCELERATION=graphs`"
GPU = "NVIDIA H200"

# By hand: of the seconds of one alone, for each of so many drawn at once.
SHARES = {1: 1.0, 2: 0.776, 4: 0.680, 8: 0.645}
COLD_BY_HAND_S = 29.0  # SDXL, from the start of the process to its first picture; by hand, 28.6 and 29.3
CONTAINER_S = 1.0  # until the process starts; assumed
FLASHBOOT_S = 2.0  # assumed
BY_HAND = f"measured by hand on one {GPU}; the benchmark has not recorded it yet"


@dataclass(frozen=True)
class Figure:
    """One number and where it comes from.

    Attributes:
        kind: measured, documented or assumed.
    """

    name: str
    value: str
    kind: str
    source: str


@dataclass(frozen=True)
class Inputs:
    """What the simulation knows of the worker.

    Attributes:
        cold_start_s: without FlashBoot.
        figures: the same for readers.
    """

    service: Service
    cold_start_s: float
    figures: tuple[Figure, ...]


def find_ours(scene: SceneResult) -> Case:
    """This worker's case without compiling, which is no default."""
    ours = [case for case in scene.cases if case.name.startswith(OURS) and case.part_of is None]
    return next((case for case in ours if case.name == GRAPHS), ours[0])


def read_inputs(report: Report) -> Inputs:
    """From the benchmark's results of a GPU."""
    one = find_ours(report.scenes[ONE]).median
    shares, shares_source = _read_shares(report, one)
    cold, cold_source = _read_cold(report)
    told = ", ".join(f"{share:.3g}" for share in (shares[number] for number in (2, 4, 8)))
    figures = (
        Figure("seconds a picture", f"{one:.3g} s", "measured", f"`{ONE}`, {MODEL}, {report.scenes[ONE].machine.gpu}"),
        Figure("the same, of 2, 4, 8 at once", f"{told} of it each", "measured", shares_source),
        Figure(
            "cold start", f"{cold + CONTAINER_S:.3g} s", "measured", f"{cold_source}; and {CONTAINER_S:g} s assumed"
        ),
        Figure("cold start with FlashBoot", f"{FLASHBOOT_S:g} s", "assumed", FLASHBOOT),
    )
    service = Service(tuple(number * share * one for number, share in sorted(_fill(shares).items())))
    return Inputs(service, cold + CONTAINER_S, figures)


FLASHBOOT = (
    "RunPod tells of 90 % of starts below 2 s and 95 % below 2.3 s for [an endpoint of its own]"
    "(https://blog.runpod.io/introducing-flashboot-1-second-serverless-cold-start/), and of 42 s for the worst; "
    "what it is for this worker was not measured"
)


def _read_shares(report: Report, one: float) -> tuple[dict[int, float], str]:
    recorded = {number: scene for number, scene in SEVERAL.items() if scene in report.scenes}
    shares = {number: find_ours(report.scenes[scene]).median / number / one for number, scene in recorded.items()}
    by_hand = ", ".join(str(number) for number in (2, *SEVERAL) if number not in recorded)
    told = [f"`{scene}` for {number}" for number, scene in recorded.items()]
    return {**SHARES, **shares}, "; ".join([*told, f"for {by_hand}, {BY_HAND}"])


def _read_cold(report: Report) -> tuple[float, str]:
    if COLD not in report.scenes:
        return COLD_BY_HAND_S, f"Stable Diffusion XL, from the process's start to its first picture, {BY_HAND}"
    scene = report.scenes[COLD]
    return find_ours(scene).median, f"`{COLD}`, {scene.subject}"


def _fill(shares: Mapping[int, float]) -> dict[int, float]:
    """Between those that are known, on a straight line."""
    known = sorted(shares)
    filled = {}
    for low, high in pairwise(known):
        for number in range(low, high + 1):
            filled[number] = shares[low] + (shares[high] - shares[low]) * (number - low) / (high - low)
    return filled
