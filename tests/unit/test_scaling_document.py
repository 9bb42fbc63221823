"""docs/scaling.md says what the simulation found: advice follows from the tables, figures are those of the files."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.prices import Prices, read_prices
from benchmarks.results import FOLDER, Report, read
from benchmarks.scaling.findings import Findings, Validation, read_findings, read_validation
from benchmarks.scaling.load import SHAPES
from benchmarks.scaling.measured import ONE, SEVERAL, find_ours, read_inputs
from benchmarks.scaling.scenarios import EIGHT, LOADS, POLICIES, list_runs
from tools.advice import A_SECOND, ADVICE, Advice, Found
from tools.line_chart import LABEL_GAP, Line, Tick, draw_lines
from tools.scaling import figure_rows, find_pool, run_rows, write_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Those that are kept."""
    return read_findings()


@pytest.fixture(scope="module")
def prices() -> Prices:
    """Those that are listed."""
    return read_prices()


@pytest.fixture(scope="module")
def found(findings: Findings, prices: Prices) -> Found:
    """Both."""
    return Found(findings, find_pool(findings, prices))


@pytest.fixture(scope="module")
def gpu() -> Report:
    """What the benchmark has measured on a GPU."""
    return read(FOLDER / "gpu.json")


@pytest.mark.parametrize("advice", ADVICE, ids=lambda one: one.name)
def test_every_piece_of_advice_is_what_the_tables_show(advice: Advice, found: Found) -> None:
    assert advice.holds(found)
    assert f"- {advice.write(found)}\n" in DOCUMENT.read_text()


def test_advice_that_no_longer_holds_is_noticed(found: Found) -> None:
    """Were pictures with eight at once as dear as one by one, nobody should be told to set it."""
    (several,) = (one for one in ADVICE if one.name == "several at once")
    dear = tuple(
        replace(run, summary=replace(run.summary, billed_s=run.summary.billed_s * 2)) if run.policy == EIGHT else run
        for run in found.findings.runs
    )
    assert not several.holds(replace(found, findings=replace(found.findings, runs=dear)))


def test_every_load_is_shown_with_every_policy(findings: Findings, prices: Prices) -> None:
    for shape in SHAPES:
        loads = [load.title for load in LOADS if load.shape == shape]
        head, *rows = run_rows(findings, prices, shape)
        assert [row[0] for row in rows if row[0]] == loads
        assert [row[1] for row in rows] == list(POLICIES) * len(loads)
        assert all(len(row) == len(head) and all(row[1:]) for row in rows)


@pytest.mark.parametrize("times", [1, 10])
def test_costs_are_seconds_of_workers_at_the_listed_price(times: int, findings: Findings, prices: Prices) -> None:
    assert find_pool(findings, prices) == prices.pool("HOPPER_141")
    dear = tuple(replace(one, per_second=one.per_second * times) for one in prices.pools)
    seconds = findings.find(A_SECOND, EIGHT).billed_s
    shown = {row[2] for row in run_rows(findings, replace(prices, pools=dear), "steady")}
    assert f"${seconds * prices.pool('HOPPER_141').per_second * times:.2f}" in shown


def test_a_new_measurement_is_told_until_it_is_simulated(findings: Findings, gpu: Report) -> None:
    scene = gpu.scenes[ONE]
    ours = replace(find_ours(scene), seconds=(0.5,))
    faster = gpu.with_scene(replace(scene, cases=(ours,)))
    (told,) = (row for row in figure_rows(findings, faster) if row[0] == "seconds a picture")
    assert "**today 0.5 s**" in told[3]


def test_what_the_benchmark_has_measured_takes_the_place_of_what_was_measured_by_hand(gpu: Report) -> None:
    by_hand = read_inputs(gpu).service
    four = replace(gpu.scenes[ONE], scene=SEVERAL[4], cases=(replace(find_ours(gpu.scenes[ONE]), seconds=(2.0,)),))
    measured = read_inputs(gpu.with_scene(four)).service
    assert measured.seconds[3] == pytest.approx(2.0) != by_hand.seconds[3]
    assert measured.seconds[0] == by_hand.seconds[0] == pytest.approx(find_ours(gpu.scenes[ONE]).median)


def test_what_is_kept_is_what_is_simulated_or_the_document_says_that_it_is_old(findings: Findings, gpu: Report) -> None:
    inputs = read_inputs(gpu)
    if [one.value for one in inputs.figures] != [one.value for one in findings.figures]:
        assert "**today " in DOCUMENT.read_text()
        return
    cheap = next(run for run in list_runs(inputs) if run.load == LOADS[0] and run.name == EIGHT)
    assert cheap.play() == findings.find(LOADS[0].title, EIGHT)


@pytest.mark.parametrize("number", [0, 1], ids=["one at once", "four at once"])
def test_the_simulation_is_near_the_real_sdk(number: int) -> None:
    """A third is for other programs on the machine that measured, which had two cores."""
    validation: Validation = read_validation()
    compared = validation.comparisons[number]
    assert compared.jobs == len(compared.measured) == len(compared.simulated) > 50
    assert sum(compared.simulated) == pytest.approx(sum(compared.measured), rel=1 / 3)


def test_tables_have_no_empty_heads_of_columns_that_hold_figures(
    findings: Findings, prices: Prices, gpu: Report
) -> None:
    tables = dict(write_tables(findings, read_validation(), gpu, read(FOLDER / "cpu.json"), prices))
    for name, rows in tables.items():
        head, *body = rows
        assert body and {len(row) for row in body} == {len(head)}, name


def test_lines_reach_from_their_first_point_to_their_last_and_labels_stand_apart() -> None:
    ticks = [Tick(1, "1"), Tick(100, "100")]
    lines = [Line("a < b", [(1, 1), (100, 10)]), Line("c", [(1, 2), (100, 10.1)])]
    root = ElementTree.fromstring(draw_lines("title", lines, ticks, ticks))
    texts = {one.text: float(one.attrib["y"]) for one in root.iter(f"{SVG}text")}
    assert abs(texts["a < b"] - texts["c"]) >= LABEL_GAP
    circles = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in root.iter(f"{SVG}circle")]
    (first, low), (last, middle), *_ = circles
    assert first < last and low > middle, "more is further up"
