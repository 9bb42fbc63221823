"""One run: a policy under a load -> what its pictures cost and how long they took."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import simpy
from simpy.events import ProcessGenerator

from benchmarks.scaling.load import Load, arrivals
from benchmarks.scaling.platform import Platform
from benchmarks.scaling.policies import Policy
from benchmarks.scaling.service import Sdk, Service
from benchmarks.scaling.worker import Job

SDK = Sdk()


@dataclass(frozen=True)
class Summary:
    """What came of it.

    Attributes:
        pictures: that count.
        billed_s: seconds of workers for a thousand pictures.
        p50_s, p95_s, p99_s: of the delays, from when a picture is asked for until it is delivered.
        starts: of workers, cold, for a thousand pictures.
        most_workers: at one time.
        drawing: share of the billed time in which a worker drew.
    """

    pictures: int
    billed_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    starts: float
    most_workers: int
    drawing: float


def simulate(load: Load, policy: Policy, service: Service, seed: int = 1, sdk: Sdk = SDK) -> Summary:
    """The summary of one run."""
    jobs = [Job(at) for at in arrivals(load, seed)]
    return summarise(run(jobs, policy, service, seed, sdk), load)


def run(jobs: Iterable[Job], policy: Policy, service: Service, seed: int = 1, sdk: Sdk = SDK) -> Platform:
    """The platform after all these jobs have been delivered and its workers, but for active ones, stopped."""
    env = simpy.Environment()
    platform = Platform(env, policy, service, sdk, seed)
    env.process(_submit(env, platform, jobs))
    env.run()
    return platform


def _submit(env: simpy.Environment, platform: Platform, jobs: Iterable[Job]) -> ProcessGenerator:
    for job in jobs:
        yield env.timeout(job.submitted - env.now)
        platform.submit(job)


def summarise(platform: Platform, load: Load) -> Summary:
    """What counts of a run, that is, what comes after the load's warm-up and, of costs, before its end."""
    delays = sorted(job.delay for job in platform.ended if job.submitted >= load.warm_up_s)
    workers = (*platform.stopped, *platform.workers)
    starts = sum(not one.active and one.started >= load.warm_up_s for one in workers)
    return Summary(
        pictures=len(delays),
        billed_s=platform.bill(load.warm_up_s, load.seconds) / len(delays) * 1000,
        p50_s=find_percentile(delays, 0.5),
        p95_s=find_percentile(delays, 0.95),
        p99_s=find_percentile(delays, 0.99),
        starts=starts / len(delays) * 1000,
        most_workers=platform.most_workers,
        drawing=math.fsum(one.drawing_s for one in workers) / platform.bill(),
    )


def find_percentile(ordered: Sequence[float], share: float) -> float:
    """The least of these values, from low to high, that at least this share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
