"""The loads and policies that are simulated, and all runs of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from benchmarks.scaling.load import Load
from benchmarks.scaling.measured import FLASHBOOT_S, Inputs
from benchmarks.scaling.policies import Policy, QueueDelay, RequestCount
from benchmarks.scaling.service import Service
from benchmarks.scaling.simulate import Summary, run, simulate
from benchmarks.scaling.worker import Job

AT_ONCE = (1, 2, 4, 8)
WAITING_JOBS = 2000  # for what one worker draws of jobs that wait
HEADROOM = 1.2  # RunPod's advice for max workers
FEWEST_MAX_WORKERS = 3  # RunPod's default

MINUTE, HOUR = 60.0, 3600.0
MILLION = 1e6 / HOUR
LOADS = (
    Load("one a minute", 1 / MINUTE, 24 * HOUR),
    Load("ten a minute", 10 / MINUTE, 12 * HOUR),
    Load("thirty a minute", 30 / MINUTE, 6 * HOUR),
    Load("one a second", 1.0, 3 * HOUR, warm_up_s=300),
    Load("ten a second", 10.0, HOUR / 2, warm_up_s=300),
    Load("a million an hour", MILLION, 360, warm_up_s=180),
    Load("one a minute", 1 / MINUTE, 24 * HOUR, "day"),
    Load("ten a minute", 10 / MINUTE, 24 * HOUR, "day"),
    Load("one a second", 1.0, 24 * HOUR, "day"),
    Load("ten a minute", 10 / MINUTE, 2 * HOUR, "flash", crowd=10),
    Load("one a second", 1.0, HOUR / 2, "flash", warm_up_s=300, crowd=10),
    Load("ten a second", 10.0, HOUR / 2, "flash", warm_up_s=300, crowd=5),
    Load("a million an hour", MILLION, 540, "flash", warm_up_s=120, crowd=2),
)

DEFAULTS, NO_FLASHBOOT, LONG_IDLE = "defaults", "no FlashBoot", "no FlashBoot, idle 60 s"
FOUR, EIGHT, COUNT_ONE, COUNT, ACTIVE = "4 at once", "8 at once", "count 1", "count 8, 8 at once", "active, 8 at once"
POLICIES = {
    DEFAULTS: "RunPod's defaults: queue delay 4 s, idle timeout 5 s, FlashBoot; `JOBS_AT_ONCE=1`",
    NO_FLASHBOOT: "the same without FlashBoot",
    LONG_IDLE: "without FlashBoot, idle timeout 60 s",
    FOUR: "defaults, `JOBS_AT_ONCE=4`",
    EIGHT: "defaults, `JOBS_AT_ONCE=8`",
    COUNT_ONE: "request count 1, else the defaults",
    COUNT: "request count 8, `JOBS_AT_ONCE=8`, else the defaults",
    ACTIVE: "active workers for the mean load, `JOBS_AT_ONCE=8`, else the defaults",
}


@dataclass(frozen=True)
class Run:
    """One run of the simulation."""

    load: Load
    name: str
    policy: Policy
    service: Service

    def play(self) -> Summary:
        """What comes of it."""
        return simulate(self.load, self.policy, self.service)


def find_pace(service: Service, at_once: int) -> float:
    """Seconds for each picture that one worker takes, where jobs always wait."""
    policy = Policy(QueueDelay(), 1, active=1, at_once=at_once)
    ended = run((Job(0.0) for _ in range(WAITING_JOBS)), policy, service).ended
    return max(job.ended or 0.0 for job in ended) / WAITING_JOBS


def list_runs(inputs: Inputs) -> Iterator[Run]:
    """Every load with every policy."""
    paces = {at_once: find_pace(inputs.service, at_once) for at_once in AT_ONCE}
    for load in LOADS:
        for name, policy in make_policies(load, inputs.cold_start_s, paces).items():
            yield Run(load, name, policy, inputs.service)


def make_policies(load: Load, cold_start_s: float, paces: Mapping[int, float]) -> dict[str, Policy]:
    """The policies for a load, each with as many workers at most as its highest rate needs, and a fifth more.

    Args:
        paces: by JOBS_AT_ONCE, the seconds for each picture that one worker takes.
    """

    def count(rate: float, at_once: int) -> int:
        return math.ceil(rate * paces[at_once])

    def allow(at_once: int) -> int:
        return max(FEWEST_MAX_WORKERS, count(HEADROOM * load.peak, at_once))

    delay = QueueDelay()
    one, four, eight = (
        Policy(delay, allow(at_once), cold_start_s=FLASHBOOT_S, at_once=at_once) for at_once in (1, 4, 8)
    )
    slow = replace(one, cold_start_s=cold_start_s)
    return {
        DEFAULTS: one,
        NO_FLASHBOOT: slow,
        LONG_IDLE: replace(slow, idle_s=60.0),
        FOUR: four,
        EIGHT: eight,
        COUNT_ONE: replace(one, rule=RequestCount(1)),
        COUNT: replace(eight, rule=RequestCount(8)),
        ACTIVE: replace(eight, active=count(load.rate, 8)),
    }


def list_variations(inputs: Inputs) -> Iterator[tuple[str, Run]]:
    """What is assumed, one by one, otherwise: how, and the run."""
    slow = Service((4.0,))
    for load in (LOADS[3], LOADS[4]):
        for name in (DEFAULTS, EIGHT):
            policy = _make(load, inputs.service, inputs.cold_start_s, name)
            yield "as above", Run(load, name, policy, inputs.service)
            yield (
                "jobs go to the worker that asked last",
                Run(load, name, replace(policy, newest_first=True), inputs.service),
            )
            yield "cold start with FlashBoot 10 s", Run(load, name, replace(policy, cold_start_s=10.0), inputs.service)
            longer = _make(load, slow, inputs.cold_start_s, name)
            yield "a picture takes 4 s, and none are drawn at once", Run(load, name, longer, slow)


def _make(load: Load, service: Service, cold_start_s: float, name: str) -> Policy:
    paces = {at_once: find_pace(service, at_once) for at_once in AT_ONCE}
    return make_policies(load, cold_start_s, paces)[name]
