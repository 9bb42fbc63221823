"""What docs/scaling.md advises: each sentence with the figures that it follows from, and whether they still say so."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.prices import Pool
from benchmarks.scaling.findings import Findings
from benchmarks.scaling.scenarios import (
    ACTIVE,
    COUNT,
    COUNT_ONE,
    DEFAULTS,
    EIGHT,
    LONG_IDLE,
    NO_FLASHBOOT,
)
from benchmarks.scaling.simulate import Summary

MAX_WORKERS = 60  # by RunPod's documents, with the largest balance that they name
SPEND_LIMIT = 80.0  # dollars an hour, by the same, unless raised
A_MINUTE, TEN_A_MINUTE, THIRTY_A_MINUTE = "one a minute", "ten a minute", "thirty a minute"
A_SECOND, TEN_A_SECOND, A_MILLION = "one a second", "ten a second", "a million an hour"
BUSY = (A_SECOND, TEN_A_SECOND, A_MILLION)
LONG_PICTURES = "a picture takes 4 s, and none are drawn at once"


@dataclass(frozen=True)
class Found:
    """The findings with today's prices."""

    findings: Findings
    pool: Pool

    def find(self, load: str, policy: str, shape: str = "steady") -> Summary:
        """What came of one run."""
        return self.findings.find(load, policy, shape)

    def cost(self, load: str, policy: str, shape: str = "steady") -> float:
        """Dollars for a thousand pictures."""
        return self.find(load, policy, shape).billed_s * self.pool.per_second

    def paid(self, load: str, policy: str, shape: str = "steady") -> str:
        """The cost of a thousand pictures, for readers."""
        return f"${self.cost(load, policy, shape):.2f}"

    def p50(self, load: str, policy: str) -> str:
        """What half of the pictures take no longer than, for readers."""
        return f"{self.find(load, policy).p50_s:.1f} s"

    def p95(self, load: str, policy: str, shape: str = "steady") -> str:
        """What 95 of 100 pictures take no longer than, for readers."""
        return f"{self.find(load, policy, shape).p95_s:.1f} s"

    def vary(self, load: str, policy: str, varied: str) -> Summary:
        """What came of a run in which one assumption is another."""
        wanted = (load, policy, varied)
        return next(one.summary for one in self.findings.runs if (one.load, one.policy, one.varied) == wanted)


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes:
        holds: whether the figures say so.
        write: the sentence, with them.
    """

    name: str
    holds: Callable[[Found], bool]
    write: Callable[[Found], str]


def _active_workers(f: Found) -> str:
    loads = (A_MINUTE, TEN_A_MINUTE, THIRTY_A_MINUTE)
    pairs = "; ".join(f"{load}: {f.paid(load, EIGHT)} without, {f.paid(load, ACTIVE)} with one" for load in loads)
    return (
        "**With up to thirty pictures a minute, an active worker is dearer than flex workers with FlashBoot** "
        f"({pairs}). At thirty a minute it is hardly so, and 95 of 100 pictures take "
        f"{f.p95(THIRTY_A_MINUTE, ACTIVE)} at most instead of {f.p95(THIRTY_A_MINUTE, EIGHT)}."
    )


def _active_for_nothing(f: Found) -> str:
    return (
        "**From one a second on, active workers for the mean load cost no more than flex ones**, which are hardly ever "
        f"idle for five seconds either: {f.paid(A_SECOND, ACTIVE)} and {f.paid(A_SECOND, EIGHT)} at one a second."
    )


def _several_at_once(f: Found) -> str:
    pairs = "; ".join(
        f"{load}: {f.paid(load, EIGHT)} instead of {f.paid(load, DEFAULTS)}, half of the pictures in "
        f"{f.p50(load, EIGHT)} instead of {f.p50(load, DEFAULTS)}"
        for load in BUSY
    )
    return (
        "**From one picture a second on, set `JOBS_AT_ONCE=8` where drawing takes less than a second**: it halves the "
        f"cost, by the SDK's waits that it fills and by pictures that are drawn together ({pairs})."
    )


def _long_pictures(f: Found) -> str:
    one, eight = f.vary(A_SECOND, DEFAULTS, LONG_PICTURES), f.vary(A_SECOND, EIGHT, LONG_PICTURES)
    cheap, dear = (summary.billed_s * f.pool.per_second for summary in (eight, one))
    return (
        "**Leave `JOBS_AT_ONCE` at 1 where a picture takes seconds and callers wait**: with 4 s a picture, at one a "
        f"second, 95 of 100 take {eight.p95_s:.1f} s at most with 8 at once, {one.p95_s:.1f} s with 1 "
        f"(for ${cheap:.2f} and ${dear:.2f}). What one worker has taken is not drawn by another, and is no longer in "
        "the queue, whose delay adds workers."
    )


def _idle_timeout(f: Found) -> str:
    return (
        "**Without FlashBoot, an idle timeout longer than the usual time between two requests saves money and time**: "
        f"at ten a minute, 60 s instead of 5 s cost {f.paid(TEN_A_MINUTE, LONG_IDLE)} instead of "
        f"{f.paid(TEN_A_MINUTE, NO_FLASHBOOT)}, and 95 of 100 pictures take {f.p95(TEN_A_MINUTE, LONG_IDLE)} at most "
        f"instead of {f.p95(TEN_A_MINUTE, NO_FLASHBOOT)}. At one a minute it is paid in vain "
        f"({f.paid(A_MINUTE, LONG_IDLE)} instead of {f.paid(A_MINUTE, NO_FLASHBOOT)}): many requests come later."
    )


def _cold_starts(f: Found) -> str:
    return (
        "**What a cold start takes is most of the bill of a quiet endpoint**: at one a minute "
        f"{f.paid(A_MINUTE, DEFAULTS)} with starts of 2 s, {f.paid(A_MINUTE, NO_FLASHBOOT)} with starts of 30 s. From "
        "ten a second on it does not matter: nothing starts any more."
    )


def _count_one(f: Found) -> str:
    return (
        "**Request count 1 buys short delays at small loads**: at one a second 95 of 100 pictures take "
        f"{f.p95(A_SECOND, COUNT_ONE)} at most instead of {f.p95(A_SECOND, DEFAULTS)}, for "
        f"{f.paid(A_SECOND, COUNT_ONE)} instead of {f.paid(A_SECOND, DEFAULTS)}."
    )


def _crowds(f: Found) -> str:
    load, shape = A_SECOND, "flash"
    return (
        "**For crowds, scale by request count with the value of `JOBS_AT_ONCE`**: when one a second become ten for two "
        f"minutes, 95 of 100 pictures take {f.p95(load, COUNT, shape)} at most instead of "
        f"{f.p95(load, EIGHT, shape)} with queue delay, for {f.paid(load, COUNT, shape)} instead of "
        f"{f.paid(load, EIGHT, shape)}."
    )


def _max_workers(f: Found) -> str:
    return (
        "**With ten pictures a second and more, max workers is a price, not only a bound**: all "
        f"{f.find(TEN_A_SECOND, DEFAULTS).most_workers} that are allowed are started once and stay, because each is "
        "handed a job before its idle timeout. This is so if jobs go to the worker that has asked first; "
        "[if not](#what-if-it-is-not-so), less so."
    )


def _million(f: Found) -> str:
    eight, one = f.find(A_MILLION, EIGHT), f.find(A_MILLION, DEFAULTS)
    return (
        f"**A million pictures an hour take {eight.most_workers} workers with `JOBS_AT_ONCE=8` and {one.most_workers} "
        f"with 1, for ${1000 * f.cost(A_MILLION, EIGHT):,.0f} and ${1000 * f.cost(A_MILLION, DEFAULTS):,.0f}.** Ask "
        "RunPod before: [its documents](https://docs.runpod.io/serverless/workers/overview#max-worker-limits) allow "
        f"{MAX_WORKERS} workers with the largest balance that they name, and "
        f"[${SPEND_LIMIT:g} an hour](https://docs.runpod.io/serverless/pricing#account-limits) unless it is raised."
    )


ADVICE = (
    Advice(
        "active workers",
        lambda f: (
            all(f.cost(load, EIGHT) < f.cost(load, ACTIVE) for load in (A_MINUTE, TEN_A_MINUTE, THIRTY_A_MINUTE))
            and f.cost(THIRTY_A_MINUTE, ACTIVE) < 1.1 * f.cost(THIRTY_A_MINUTE, EIGHT)
            and f.find(THIRTY_A_MINUTE, ACTIVE).p95_s < f.find(THIRTY_A_MINUTE, EIGHT).p95_s
        ),
        _active_workers,
    ),
    Advice(
        "active workers for nothing",
        lambda f: all(f.cost(load, ACTIVE) < 1.01 * f.cost(load, EIGHT) for load in BUSY),
        _active_for_nothing,
    ),
    Advice(
        "several at once",
        lambda f: all(f.cost(load, EIGHT) < 0.55 * f.cost(load, DEFAULTS) for load in BUSY),
        _several_at_once,
    ),
    Advice(
        "long pictures",
        lambda f: f.vary(A_SECOND, EIGHT, LONG_PICTURES).p95_s > 2 * f.vary(A_SECOND, DEFAULTS, LONG_PICTURES).p95_s,
        _long_pictures,
    ),
    Advice(
        "idle timeout",
        lambda f: (
            f.cost(TEN_A_MINUTE, LONG_IDLE) < f.cost(TEN_A_MINUTE, NO_FLASHBOOT)
            and f.find(TEN_A_MINUTE, LONG_IDLE).p95_s < f.find(TEN_A_MINUTE, NO_FLASHBOOT).p95_s
            and f.cost(A_MINUTE, LONG_IDLE) > f.cost(A_MINUTE, NO_FLASHBOOT)
        ),
        _idle_timeout,
    ),
    Advice(
        "cold starts",
        lambda f: (
            f.cost(A_MINUTE, NO_FLASHBOOT) > 2 * f.cost(A_MINUTE, DEFAULTS)
            and all(
                f.cost(load, NO_FLASHBOOT) < 1.01 * f.cost(load, DEFAULTS) and f.find(load, NO_FLASHBOOT).starts == 0
                for load in (TEN_A_SECOND, A_MILLION)
            )
        ),
        _cold_starts,
    ),
    Advice(
        "request count 1",
        lambda f: (
            f.find(A_SECOND, COUNT_ONE).p95_s < 0.5 * f.find(A_SECOND, DEFAULTS).p95_s
            and f.cost(A_SECOND, COUNT_ONE) > f.cost(A_SECOND, DEFAULTS)
        ),
        _count_one,
    ),
    Advice(
        "crowds",
        lambda f: (
            f.find(A_SECOND, COUNT, "flash").p95_s < 0.8 * f.find(A_SECOND, EIGHT, "flash").p95_s
            and f.cost(A_SECOND, COUNT, "flash") <= 1.02 * f.cost(A_SECOND, EIGHT, "flash")
        ),
        _crowds,
    ),
    Advice(
        "max workers",
        lambda f: all(
            one.summary.most_workers == one.max_workers and one.summary.starts == 0
            for one in f.findings.runs
            if (one.policy, one.shape, one.varied) == (DEFAULTS, "steady", "") and one.load in (TEN_A_SECOND, A_MILLION)
        ),
        _max_workers,
    ),
    Advice(
        "a million an hour",
        lambda f: (
            f.find(A_MILLION, DEFAULTS).most_workers > f.find(A_MILLION, EIGHT).most_workers > MAX_WORKERS
            and 1000 * f.cost(A_MILLION, EIGHT) > SPEND_LIMIT
        ),
        _million,
    ),
)


def write_advice(found: Found) -> Iterator[str]:
    """Those sentences that the figures say."""
    yield from (f"- {one.write(found)}" for one in ADVICE if one.holds(found))
