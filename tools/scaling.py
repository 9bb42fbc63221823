"""What docs/scaling.md shows of the simulation: its tables and plots, with today's listed prices."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.prices import Pool, Prices, read_prices
from benchmarks.results import Report, read
from benchmarks.scaling.findings import Finding, Findings, Validation, read_findings, read_validation
from benchmarks.scaling.load import SHAPES, Shape
from benchmarks.scaling.measured import Figure, read_inputs
from benchmarks.scaling.policies import Policy, QueueDelay
from benchmarks.scaling.scenarios import ACTIVE, AT_ONCE, COUNT_ONE, DEFAULTS, EIGHT, LOADS, LONG_IDLE, POLICIES
from benchmarks.scaling.service import Service
from benchmarks.scaling.simulate import find_percentile, run
from benchmarks.scaling.worker import Job
from tools.advice import Found, write_advice
from tools.line_chart import Line, Tick, draw_lines

HOUR = 3600
DRAWN = (DEFAULTS, LONG_IDLE, COUNT_ONE, EIGHT, ACTIVE)  # in the plots
ACROSS = (
    Tick(50, ""),
    Tick(100, "100"),
    Tick(1e3, "1,000"),
    Tick(1e4, "10,000"),
    Tick(1e5, "100,000"),
    Tick(1e6, "1,000,000 pictures an hour"),
)
DOLLARS = tuple(Tick(at, f"${at:g}") for at in (0.5, 1, 2, 5, 10, 20, 50, 100))
SECONDS = tuple(Tick(at, f"{at:g} s") for at in (0.5, 1, 2, 5, 10, 20, 50))

PACES_S, PACED_JOBS = (0.05, 0.3, 2.0), 8  # of the benchmark's scene

Row = tuple[str, ...]


def find_pool(findings: Findings, prices: Prices) -> Pool:
    """The pool of the GPU that was measured.

    Raises:
        LookupError: no price is listed for it.
    """
    if (pool := prices.find(findings.gpu)) is None:
        raise LookupError(f"no price is listed for {findings.gpu}")
    return pool


def write_dollars(billed_s: float, pool: Pool) -> str:
    """For so many seconds of workers."""
    return f"${billed_s * pool.per_second:.2f}"


def policy_rows() -> Iterator[Row]:
    """What the policies are called, and what they are."""
    yield "name", "settings"
    yield from POLICIES.items()


def figure_rows(findings: Findings, report: Report) -> Iterator[Row]:
    """What the simulation was fed with from the benchmark, and what the benchmark says now, where that is another."""
    yield "what", "simulated with", "", "where it comes from"
    now = {figure.name: figure for figure in read_inputs(report).figures}
    for figure in findings.figures:
        yield figure.name, figure.value, figure.kind, figure.source + _tell_change(figure, now[figure.name])


def _tell_change(then: Figure, now: Figure) -> str:
    return "" if then.value == now.value else f"; **today {now.value}**, which `make scaling` takes"


def pace_rows(findings: Findings, prices: Prices) -> Iterator[Row]:
    """What one worker draws where jobs always wait."""
    yield (
        "`JOBS_AT_ONCE`",
        "seconds a picture",
        "pictures an hour",
        "a thousand pictures",
        "workers for a million an hour",
    )
    pool = find_pool(findings, prices)
    for at_once, pace in findings.paces.items():
        workers = 1e6 / HOUR * pace
        yield f"{at_once}", f"{pace:.2f}", f"{HOUR / pace:,.0f}", write_dollars(1000 * pace, pool), f"{workers:.0f}"


def run_rows(findings: Findings, prices: Prices, shape: Shape) -> Iterator[Row]:
    """Every load of this shape with every policy."""
    pool = find_pool(findings, prices)
    yield from _write_runs([one for one in findings.runs if one.shape == shape and not one.varied], pool)


def _write_runs(runs: Sequence[Finding], pool: Pool) -> Iterator[Row]:
    yield (
        "load",
        "policy",
        "1,000 pictures",
        "p50",
        "p95",
        "p99",
        "most workers",
        "of allowed",
        "cold starts",
        "drawing",
    )
    last = ""
    for one in runs:
        yield one.load if one.load != last else "", one.policy, *_write_run(one, pool)
        last = one.load


def _write_run(one: Finding, pool: Pool) -> Iterator[str]:
    summary = one.summary
    yield write_dollars(summary.billed_s, pool)
    yield from (f"{seconds:.2f} s" for seconds in (summary.p50_s, summary.p95_s, summary.p99_s))
    yield f"{summary.most_workers}"
    yield f"{one.max_workers}"
    yield f"{summary.starts:.1f}"
    yield f"{summary.drawing:.0%}"


def variation_rows(findings: Findings, prices: Prices) -> Iterator[Row]:
    """Runs in which one assumption is another."""
    pool = find_pool(findings, prices)
    yield "load", "policy", "assumed otherwise", "1,000 pictures", "p50", "p95", "p99", "most workers"
    for one in findings.runs:
        if one.varied:
            yield one.load, one.policy, one.varied, *list(_write_run(one, pool))[:5]


def validation_rows(validation: Validation) -> Iterator[Row]:
    """The real SDK beside the simulation."""
    yield "`JOBS_AT_ONCE`", "jobs a second", "jobs", "", "mean", "p50", "p95", "p99"
    for one in validation.comparisons:
        yield f"{one.at_once}", f"{one.rate:g}", f"{one.jobs}", *_write_delays("measured", one.measured)
        yield "", "", "", *_write_delays("simulated", one.simulated)


def _write_delays(what: str, delays: Sequence[float]) -> Iterator[str]:
    ordered = sorted(delays)
    yield what
    yield f"{sum(ordered) / len(ordered):.2f} s"
    yield from (f"{find_percentile(ordered, share):.2f} s" for share in (0.5, 0.95, 0.99))


def between_rows(report: Report) -> Iterator[Row]:
    """Jobs that all wait, as the benchmark has measured them through the SDK, and as they are simulated."""
    yield (
        "a job takes",
        *(f"`JOBS_AT_ONCE={at_once}`, {what}" for at_once in AT_ONCE for what in ("measured", "simulated")),
    )
    for pace in PACES_S:
        cells = [f"{pace:g} s"]
        for at_once in AT_ONCE:
            seen = report.scenes["between-jobs"].case(f"{pace:g} s, `JOBS_AT_ONCE={at_once}`").median
            cells += [f"{seen:.2f} s", f"{find_waiting_pace(pace, at_once):.2f} s"]
        yield tuple(cells)


def find_waiting_pace(job_s: float, at_once: int) -> float:
    """Seconds for each of eight jobs that all wait, by the simulation, from when the first is taken."""
    policy = Policy(QueueDelay(), 1, active=1, at_once=at_once)
    ended = run([Job(0.0) for _ in range(PACED_JOBS)], policy, Service((job_s,))).ended
    return (max(job.ended or 0.0 for job in ended) - min(job.taken or 0.0 for job in ended)) / len(ended)


def draw_plots(findings: Findings, prices: Prices) -> dict[str, str]:
    """SVG by file name: what a thousand pictures cost and how long they take, by load, steady."""
    price = find_pool(findings, prices).per_second
    loads = [load for load in LOADS if load.shape == "steady"]

    def line(policy: str, of_delay: bool) -> Line:
        summaries = [findings.find(load.title, policy) for load in loads]
        values = [one.p95_s if of_delay else one.billed_s * price for one in summaries]
        return Line(policy, [(load.rate * HOUR, value) for load, value in zip(loads, values, strict=True)])

    cost, delay = "Dollars for a thousand pictures", "95 of 100 pictures take no longer than"
    return {
        "cost.svg": draw_lines(cost, [line(name, False) for name in DRAWN], ACROSS, DOLLARS),
        "delay.svg": draw_lines(delay, [line(name, True) for name in DRAWN], ACROSS, SECONDS),
    }


def write_tables(
    findings: Findings, validation: Validation, gpu: Report, cpu: Report, prices: Prices
) -> Iterator[tuple[str, Iterator[Row]]]:
    """The document's tables by name."""
    yield "policies", policy_rows()
    yield "figures", figure_rows(findings, gpu)
    yield "paces", pace_rows(findings, prices)
    for shape in SHAPES:
        yield shape, run_rows(findings, prices, shape)
    yield "variations", variation_rows(findings, prices)
    yield "validation", validation_rows(validation)
    yield "between", between_rows(cpu)


def write_document(
    text: str, insert: Callable[[str, str, str], str], write_table: Callable[..., str], results: Path
) -> tuple[str, dict[str, str]]:
    """The document with its tables and sentences, and its plots by file name.

    Args:
        insert: puts a text between two marks of a document.
        write_table: rows -> Markdown.
        results: the folder of the benchmark's.
    """
    findings, prices = read_findings(), read_prices()
    reports = read(results / "gpu.json"), read(results / "cpu.json")
    for name, rows in write_tables(findings, read_validation(), *reports, prices):
        text = insert(text, name, write_table(*rows))
    advice = "\n".join(write_advice(Found(findings, find_pool(findings, prices))))
    return insert(text, "advice", advice), draw_plots(findings, prices)
