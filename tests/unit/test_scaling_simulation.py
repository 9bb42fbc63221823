"""The simulated endpoint queues, scales and bills by the rules that it is said to follow, and nothing is lost in it."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.results import FOLDER, read
from benchmarks.scaling.load import DAY_S, Load, arrivals
from benchmarks.scaling.platform import Platform
from benchmarks.scaling.policies import Policy, QueueDelay, RequestCount
from benchmarks.scaling.service import Sdk, Service
from benchmarks.scaling.simulate import find_percentile, run, simulate, summarise
from benchmarks.scaling.worker import Job
from tools.scaling import find_waiting_pace

SECOND = Service((1.0,))
EIGHT_TOGETHER = Service(tuple(0.5 + 0.5 * number for number in range(1, 9)))
NO_WAITS = Sdk(0.0, 0.0, 0.0)
ALWAYS_ONE = Policy(QueueDelay(), 1, active=1)


def mean_wait(platform: Platform, service_s: Sequence[float]) -> float:
    """Between submission and the start of drawing."""
    return math.fsum(job.delay - job.work * service_s[0] for job in platform.ended) / len(platform.ended)


def poisson(rate: float, jobs: int, seed: int) -> list[float]:
    """Times of arrival."""
    numbers, now = random.Random(seed), 0.0
    return [now := now + numbers.expovariate(rate) for _ in range(jobs)]


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_worker_with_jobs_of_one_length_waits_as_queueing_theory_says(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) of a job (Pollaczek and Khinchine)."""
    platform = run([Job(at) for at in poisson(load, 20_000, 3)], ALWAYS_ONE, SECOND, sdk=NO_WAITS)
    assert mean_wait(platform, SECOND.seconds) == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_several_workers_with_jobs_of_random_length_wait_as_queueing_theory_says() -> None:
    """M/M/3: Erlang's formula C gives the share that waits at all; they wait 1 / (workers - traffic) in the mean."""
    workers, traffic, numbers = 3, 2.4, random.Random(5)
    jobs = [Job(at, work=numbers.expovariate(1.0)) for at in poisson(traffic, 30_000, 4)]
    platform = run(jobs, Policy(QueueDelay(), workers, active=workers), SECOND, sdk=NO_WAITS)

    last = traffic**workers / math.factorial(workers) * workers / (workers - traffic)
    waits = last / (sum(traffic**number / math.factorial(number) for number in range(workers)) + last)
    assert mean_wait(platform, SECOND.seconds) == pytest.approx(waits / (workers - traffic), rel=0.08)


POLICIES = {
    "queue delay": Policy(QueueDelay(4.0), 20, cold_start_s=3.0),
    "queue delay, four at once": Policy(QueueDelay(4.0), 20, cold_start_s=3.0, at_once=4),
    "request count": Policy(RequestCount(4), 20, cold_start_s=3.0, at_once=8),
    "active ones beside": Policy(QueueDelay(1.0), 20, active=2, at_once=2, newest_first=True),
    "too few workers": Policy(RequestCount(1), 2),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_job_ends_once_and_no_worker_has_too_many(policy: Policy) -> None:
    jobs = [Job(at) for at in poisson(2.5, 1500, 7)]
    platform = run(jobs, policy, EIGHT_TOGETHER)

    assert sorted(map(id, platform.ended)) == sorted(map(id, jobs))
    assert platform.in_progress == len(platform.queue) == 0
    for job in jobs:
        assert job.taken is not None and job.ended is not None
        assert job.submitted <= job.taken and job.ended - job.taken >= EIGHT_TOGETHER.seconds[0]
    assert platform.most_workers <= policy.max_workers
    assert all(worker.in_hand == 0 for worker in (*platform.stopped, *platform.workers))
    in_hand = sorted(
        [(job.taken, 1) for job in jobs] + [(job.ended, -1) for job in jobs], key=lambda one: (one[0], one[1])
    )
    held, most = 0, 0
    for _, change in in_hand:
        held += change
        most = max(most, held)
    assert most <= policy.max_workers * policy.at_once


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    load, policy = Load("", 1.0, 600), POLICIES["queue delay, four at once"]
    first, again, other = (simulate(load, policy, EIGHT_TOGETHER, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(("requests", "workers"), [(1, 1), (4, 1), (5, 2), (9, 3), (40, 6)])
def test_request_count_is_runpods_formula(requests: int, workers: int) -> None:
    """RunPod, endpoint settings: "Math.ceil((requestsInQueue + requestsInProgress) / scalerValue)"; six are allowed."""
    policy = Policy(RequestCount(4), 6, cold_start_s=60.0)
    platform = run([Job(0.0) for _ in range(requests)], policy, SECOND)
    at_once = [one for one in platform.stopped if one.started == 0.0]
    assert len(at_once) == workers


def test_requests_in_progress_count_too() -> None:
    policy, long = Policy(RequestCount(1), 6, cold_start_s=0.0), Service((20.0,))
    platform = run([Job(0.0), Job(10.0)], policy, long)
    assert sorted(one.started for one in platform.stopped) == [0.0, 10.0]


def test_queue_delay_adds_a_worker_for_each_request_that_has_waited_so_long() -> None:
    """RunPod, endpoint settings: "Adds workers when requests wait longer than the threshold (default: 4 seconds)"."""
    policy = Policy(QueueDelay(4.0), 9, cold_start_s=30.0)
    platform = run([Job(0.0), Job(1.0), Job(2.5)], policy, SECOND)
    assert sorted(one.started for one in platform.stopped) == [0.0, 5.0, 6.5]


def test_queue_delay_adds_none_for_requests_that_wait_less() -> None:
    platform = run([Job(0.0), Job(0.5), Job(1.0)], Policy(QueueDelay(4.0), 9, cold_start_s=0.5), SECOND)
    assert len(platform.stopped) == 1


def test_a_worker_is_billed_from_its_start_through_its_idle_timeout_rounded_up() -> None:
    """RunPod, pricing: "billed from when a worker starts until it fully stops, rounded up to the nearest second"."""
    platform = run([Job(100.0)], Policy(QueueDelay(), 3, cold_start_s=2.5, idle_s=5.0), SECOND, sdk=NO_WAITS)
    (worker,) = platform.stopped
    assert (worker.started, worker.stopped) == (100.0, 108.5)
    assert platform.bill() == 9
    assert platform.bill(begin=102.0) == 7
    assert platform.bill(end=101.0) == 1
    assert platform.bill(begin=200.0) == 0


def test_a_worker_that_gets_a_job_while_idle_stays_and_is_billed_once() -> None:
    policy = Policy(QueueDelay(), 3, cold_start_s=2.5, idle_s=5.0)
    platform = run([Job(0.0), Job(7.0)], policy, SECOND, sdk=NO_WAITS)
    assert [(one.started, one.stopped) for one in platform.stopped] == [(0.0, 13.0)]
    assert platform.bill() == 13


def test_active_workers_are_billed_all_the_time_and_start_warm() -> None:
    load = Load("", 0.01, 1000.0)
    policy = Policy(QueueDelay(), 2, active=2, cold_start_s=30.0)
    platform = run([Job(at) for at in arrivals(load, 1)] + [Job(1000.0)], policy, SECOND)
    summary = summarise(platform, load)
    assert summary.billed_s * summary.pictures / 1000 == pytest.approx(2 * 1000)
    assert summary.starts == 0 and summary.p99_s < 2.0


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
@pytest.mark.parametrize("pace", [0.05, 0.3, 2.0])
def test_jobs_that_wait_are_taken_as_fast_as_the_real_sdk_was_seen_to(pace: float, at_once: int) -> None:
    """The benchmark's scene between-jobs: eight jobs that sleep for so long, through RunPod's SDK."""
    seen = read(FOLDER / "cpu.json").scenes["between-jobs"].case(f"{pace:g} s, `JOBS_AT_ONCE={at_once}`").median
    assert find_waiting_pace(pace, at_once) == pytest.approx(seen, rel=0.2), (
        "a fifth is for other programs on the machine that measured"
    )


def test_jobs_that_wait_together_are_drawn_together() -> None:
    together = run([Job(0.0) for _ in range(8)], replace(ALWAYS_ONE, at_once=8), EIGHT_TOGETHER).ended
    alone = run([Job(0.0) for _ in range(8)], replace(ALWAYS_ONE, at_once=8), SECOND).ended
    assert max(job.delay for job in together) < 0.75 * max(job.delay for job in alone)
    assert len({job.ended for job in together}) < len({job.ended for job in alone}) == 8


def test_arrivals_are_as_many_as_the_load_says() -> None:
    assert len(list(arrivals(Load("", 5.0, 4000), 1))) == pytest.approx(20_000, rel=0.03)


def test_a_day_has_its_noon_and_a_flash_crowd_its_two_minutes() -> None:
    day = list(arrivals(Load("", 0.2, DAY_S, "day"), 1))
    noon = sum(abs(at - DAY_S / 2) < DAY_S / 8 for at in day)
    night = sum(at < DAY_S / 8 or at > DAY_S * 7 / 8 for at in day)
    assert noon > 4 * night

    flash = list(arrivals(Load("", 1.0, 1800, "flash", crowd=10.0), 1))
    assert sum(600 <= at < 720 for at in flash) == pytest.approx(1200, rel=0.15)
    assert sum(at < 600 for at in flash) == pytest.approx(600, rel=0.15)


def test_a_percentile_is_not_exceeded_by_its_share() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [find_percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert find_percentile([3.0], 0.5) == 3.0
