"""The benchmark's results as docs/performance.md shows them: for each scene a chart and a table of each machine."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.results import Case, Quality, Report, SceneResult, read
from benchmarks.scenes import SCENES
from tools.chart import Bar, draw_chart
from tools.markdown import table

FLAT = 1.0  # contrast below which a picture shows nothing
YARDSTICK = "sd15-1"  # what the scene about overhead is held against

Row = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column, which is left out where no case has anything in it."""

    title: str
    write: Callable[[Case], str]


def read_reports(folder: Path) -> dict[str, Report]:
    """By the names of their files: those with a GPU first."""
    reports = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(reports.items(), key=lambda item: not any(one.machine.gpu for one in item[1].scenes.values())))


def write_document(reports: Mapping[str, Report]) -> str:
    """All scenes in their order, and which of them were never played."""
    played = {name for report in reports.values() for name in report.scenes}
    parts = [part for one in SCENES if one.name in played for part in _write_scene(one.name, one.meaning, reports)]
    missing = ", ".join(f"`{scene.name}`" for scene in SCENES if scene.name not in played)
    return "\n\n".join([*parts, f"Not measured yet: {missing}."] if missing else parts)


def summary_rows(report: Report) -> Iterator[Row]:
    """Every way of this worker to draw what was recorded, and how many times faster than each baseline it is."""
    yield "what", "way", "a job", "times as fast as"
    for scene in SCENES:
        result = report.scenes.get(scene.name)
        if result is None or not result.pictures:
            continue
        ratios = result.ratios()
        for case in filter(lambda case: _is_ours(case, result), result.cases):
            faster = (f"{other}: {1 / ratios[case.name, other]:.2f}" for other in case.against)
            way = case.name.partition(", ")[2] or case.name
            pictures = f", {result.pictures} pictures" if result.pictures > 1 else ""
            yield f"[{result.subject}{pictures}](#{scene.name})", way, write_seconds(case.median), ", ".join(faster)


def several_gpus_rows(report: Report) -> Iterator[Row]:
    """What was recorded with several GPUs, for the document about them."""
    yield "a job", "way", "one GPU", "several", "times as fast"
    for scene in SCENES:
        result = report.scenes.get(scene.name)
        if result is None or scene.kind != "gpus":
            continue
        for case in (one for one in result.cases if one.against):
            alone = result.case(case.against[0])
            pictures = f"{result.pictures} pictures" if result.pictures > 1 else "one guided picture"
            yield (
                f"[{pictures}: {result.subject}](performance.md#{scene.name})",
                case.name.partition(", ")[2],
                write_seconds(alone.median),
                write_seconds(case.median),
                f"{alone.median / case.median:.2f}",
            )


def draw_charts(reports: Mapping[str, Report]) -> dict[str, str]:
    """SVG by file name."""
    return {
        name_chart(machine, result): _draw(result)
        for machine, report in reports.items()
        for result in report.scenes.values()
    }


def name_chart(machine: str, result: SceneResult) -> str:
    """The chart's file."""
    return f"{machine}-{result.scene}.svg"


def _write_scene(name: str, meaning: str, reports: Mapping[str, Report]) -> Iterator[str]:
    yield f"## `{name}`"
    yield meaning
    found = {machine: report.scenes[name] for machine, report in reports.items() if name in report.scenes}
    for machine, result in found.items():
        yield f"{_describe_machine(result)} {result.subject}, medians of {len(result.cases[0].seconds)} rounds."
        yield f"![{name} on {machine}](images/performance/{name_chart(machine, result)})"
        yield table(*list_rows(result))
        yield from _list_remarks(result, reports[machine])


def _describe_machine(result: SceneResult) -> str:
    machine = result.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gpu = f"**{machine.gpu}**" if machine.gpu else "**Without a GPU**"
    return f"{gpu}, {machine.cores} cores of {machine.cpu}, {versions}, {result.date[:10]}:"


def list_rows(result: SceneResult) -> Iterator[Row]:
    """A head, and a row for each case."""
    columns = [one for one in _columns(result) if any(one.write(case) for case in result.cases)]
    yield "", *(column.title for column in columns)
    for case in result.cases:
        name = f"- {case.name.removeprefix(f'{case.part_of}: ')}" if case.part_of else case.name
        yield name, *(column.write(case) for column in columns)


def _columns(result: SceneResult) -> Iterator[Column]:
    ratios, floor = result.ratios(), result.floor
    yield Column("median", lambda case: write_seconds(case.median))
    yield Column("lowest to highest", lambda case: " to ".join(map(write_seconds, _range(case))))
    if result.pictures > 1:
        yield Column("a picture", lambda case: write_seconds(case.median / result.pictures))
    others = (
        [] if _pairs_by_name(result) else list(dict.fromkeys(other for case in result.cases for other in case.against))
    )
    for other in others:
        yield Column(f"of {other}", lambda case, other=other: _write_ratio(ratios.get((case.name, other))))  # type: ignore[misc]
    if not others:
        yield Column("of the baseline", lambda case: _write_ratio(ratios.get((case.name, *case.against[:1]))))  # type: ignore[arg-type]
    yield Column("times the floor", lambda case: f"{case.median / floor.seconds:.2f}" if floor else "")
    yield Column("load", lambda case: _write_optional(case.load_s, write_seconds))
    yield Column("first job", lambda case: _write_optional(case.first_s, write_seconds))
    yield Column("second job", lambda case: _write_optional(case.second_s, write_seconds))
    yield Column("peak memory", lambda case: _write_optional(case.peak_bytes, lambda held: f"{held / 1e9:.2f} GB"))
    drawn_by = "one GPU" if result.scene.startswith("gpus") else "plain"
    yield Column(f"PSNR to {drawn_by}", lambda case: _write_optional(case.quality, write_quality))
    yield Column("seen", lambda case: case.notes)


def _pairs_by_name(result: SceneResult) -> bool:
    """Whether cases are compared with more others than a table has room for."""
    return len({other for case in result.cases for other in case.against}) > 2


def _list_remarks(result: SceneResult, report: Report) -> Iterator[str]:
    if floor := result.floor:
        yield (
            f"Floor: {write_seconds(floor.seconds)}, {floor.work_tflop:.4g} TFLOP at {floor.matmul_tflops:.3g} TFLOP/s "
            f"in {floor.dtype}. A copy moves {floor.copy_tb_s:.3g} TB/s."
        )
    yardstick = report.scenes.get(YARDSTICK)
    if result.scene == "overhead" and yardstick and yardstick.machine == result.machine:
        plain, whole = yardstick.cases[0], result.cases[0]
        yield f"{whole.name}: {whole.median / plain.median:.1%} of what {plain.name} takes in `{YARDSTICK}`."


def _draw(result: SceneResult) -> str:
    cases = [case for case in result.cases if case.part_of is None or result.scene == "overhead"]
    bars = [
        Bar(
            case.name.replace("`", ""),
            min(case.seconds),
            case.median,
            max(case.seconds),
            write_seconds(case.median),
            _is_ours(case, result),
        )
        for case in cases
    ]
    return draw_chart(bars, result.floor.seconds if result.floor else None)


def _is_ours(case: Case, result: SceneResult) -> bool:
    """What nothing else is compared with is no baseline."""
    return not any(case.name in other.against for other in result.cases)


def _range(case: Case) -> tuple[float, float]:
    return min(case.seconds), max(case.seconds)


def write_seconds(seconds: float) -> str:
    """With three digits, in milliseconds below a tenth of a second."""
    return f"{seconds * 1000:.3g} ms" if abs(seconds) < 0.0995 else f"{seconds:.3g} s"


def write_quality(quality: Quality) -> str:
    """The worst picture's."""
    if quality.contrast < FLAT:
        return "the pictures are flat"
    if quality.psnr_db is None:
        return "the same pixels"
    return f"{quality.psnr_db:.1f} dB, at most {quality.largest_difference} of 255"


def _write_ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _write_optional(value: T | None, write: Callable[[T], str]) -> str:
    return "" if value is None else write(value)
