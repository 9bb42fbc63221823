"""What docs/costs.md shows: which model runs on which of RunPod's pools, and what was measured, at listed prices."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.prices import Pool, Prices
from benchmarks.results import Case, Report, SceneResult
from benchmarks.scaling.measured import OURS, find_ours
from tools.chart import Bar, draw_chart
from tools.models import OFFLOADS, Fit, find_fits
from tools.performance import write_seconds
from tools.published import PUBLISHED, Published
from worker.engine.memory_plan import Quantize

HOUR = 3600
BREAK = "<br>"  # within a cell of a table in Markdown
PREFERENCE: tuple[Quantize, ...] = ("none", "fp8", "8bit", "4bit")  # the first changes pictures least

Row = tuple[str, ...]


def cost_rows(report: Report, prices: Prices) -> Iterator[Row]:
    """Every model on every size of memory: how it fits, and what was measured there.

    Args:
        report: the benchmark's results on a GPU.
    """
    sizes = sorted({pool.gigabytes for pool in prices.pools})
    pools = {size: [pool for pool in prices.pools if pool.gigabytes == size] for size in sizes}
    yield "model", *(f"{size} GB" for size in sizes)
    yield (
        f"*an hour, {prices.read}*",
        *(BREAK.join(f"{pool.gpus}: {_write_hour(pool)}" for pool in pools[size]) for size in sizes),
    )
    for model in PUBLISHED:
        yield model.title, *(_write_cell(model, size, pools[size], report, prices) for size in sizes)


def _write_cell(model: Published, size: int, pools: Sequence[Pool], report: Report, prices: Prices) -> str:
    measured = (_write_measured(model, pool, report, prices) for pool in pools)
    return BREAK.join([describe_fit(find_fits(model, size)), *filter(None, measured)])


def _write_measured(model: Published, pool: Pool, report: Report, prices: Prices) -> str:
    """Nothing, where nothing was."""
    cold, seconds = find_cold_start(model, pool, report, prices), find_seconds(model, pool, report, prices)
    found = []
    if seconds is not None:
        found += [f"{write_seconds(seconds)} a picture", f"{count_for_a_dollar(seconds, pool):,.0f} for a dollar"]
    if cold is not None:
        found.append(f"cold start {write_seconds(cold)}")
    return f"{pool.gpus}: {', '.join(found)}" if found else ""


def _write_hour(pool: Pool) -> str:
    return f"${pool.per_second * HOUR:.2f}"


def describe_fit(fits: Mapping[Quantize, Fit]) -> str:
    """The fastest way in which a model fits, and of those that are as fast the one that changes pictures least."""
    for offload in OFFLOADS:
        for kind in PREFERENCE:
            fit = fits.get(kind)
            if fit and fit.works and fit.plan.offload == offload:
                return fit.describe() + ("" if kind == "none" else f", `QUANTIZE={kind}`")
    return "no"


def find_seconds(model: Published, pool: Pool, report: Report, prices: Prices) -> float | None:
    """Of a picture, by this worker without compiling; None where it was not measured on this pool."""
    scene = report.scenes.get(model.scene)
    if scene is None or prices.find(scene.machine.gpu or "") != pool:
        return None
    return find_ours(scene).median


def find_cold_start(model: Published, pool: Pool, report: Report, prices: Prices) -> float | None:
    """From the start of a process to its first picture; None where it was not measured on this pool."""
    scene = report.scenes.get(model.start)
    if scene is None or prices.find(scene.machine.gpu or "") != pool:
        return None
    return find_ours(scene).median


def count_for_a_dollar(seconds: float, pool: Pool) -> float:
    """Pictures of so many seconds each, one after the other, at the listed price."""
    return 1 / (seconds * pool.per_second)


def draw_costs(report: Report, prices: Prices) -> str:
    """SVG: the pictures for a dollar of everything that draws one picture in the benchmark."""
    scenes = {one.title: report.scenes[one.scene] for one in PUBLISHED if one.scene in report.scenes}
    priced = {title: (scene, pool) for title, scene in scenes.items() if (pool := prices.find(scene.machine.gpu or ""))}
    return draw_chart(
        [_draw(title, scene, case, pool) for title, (scene, pool) in priced.items() for case in scene.cases]
    )


def _draw(title: str, scene: SceneResult, case: Case, pool: Pool) -> Bar:
    low, middle, high = (
        count_for_a_dollar(seconds, pool) for seconds in (max(case.seconds), case.median, min(case.seconds))
    )
    label = f"{title}, {case.name.removeprefix(f'{OURS}, ')}".replace("`", "").replace("ACCELERATION=", "this worker, ")
    return Bar(label, low, middle, high, f"{middle:,.0f}", case.name.startswith(OURS))
