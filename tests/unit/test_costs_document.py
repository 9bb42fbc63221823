"""docs/costs.md says of every model how it fits on every size of GPU, and shows no seconds but those measured there."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.prices import FILE, Prices, read_prices
from benchmarks.results import FOLDER, Case, Report, SceneResult, read
from benchmarks.scaling.measured import COLD, OURS
from tools.costs import BREAK, cost_rows, describe_fit, draw_costs
from tools.models import Fit, find_fits
from tools.published import PUBLISHED
from worker.engine.memory_plan import MemoryPlan, Offload

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def prices() -> Prices:
    """Those that are listed."""
    return read_prices()


@pytest.fixture(scope="module")
def gpu() -> Report:
    """What the benchmark has measured on a GPU."""
    return read(FOLDER / "gpu.json")


def measured(report: Report, prices: Prices) -> dict[str, str]:
    """What was measured, by model and GPUs."""
    _, _, *body = cost_rows(report, prices)
    cells = [(row[0], line) for row in body for cell in row[1:] for line in cell.split(BREAK)[1:]]
    return {f"{model} on {line.partition(': ')[0]}": line.partition(": ")[2] for model, line in cells}


def on_a_gpu(name: str, scene: SceneResult, seconds: float) -> SceneResult:
    """A result of this GPU."""
    machine = replace(scene.machine, gpu=name)
    return replace(scene, machine=machine, cases=(Case(OURS, (seconds,)),))


def test_every_model_is_shown_on_every_size_and_every_pool_with_its_price(prices: Prices) -> None:
    head, priced, *body = cost_rows(Report(), prices)
    assert {*head[1:]} == {f"{pool.gigabytes} GB" for pool in prices.pools}
    assert [row[0] for row in body] == [model.title for model in PUBLISHED]
    shown = {line for cell in priced[1:] for line in cell.split(BREAK)}
    assert shown == {f"{pool.gpus}: ${3600 * pool.per_second:.2f}" for pool in prices.pools}


def test_what_was_measured_on_one_gpu_is_shown_for_that_one_alone(gpu: Report, prices: Prices) -> None:
    scene = on_a_gpu("NVIDIA H100 80GB HBM3", gpu.scenes["sd15-1"], 0.5)
    pictures = 1 / (0.5 * prices.pool("ADA_80_PRO").per_second)
    assert measured(Report({"sd15-1": scene}), prices) == {
        "Stable Diffusion 1.5 on H100": f"0.5 s a picture, {pictures:,.0f} for a dollar"
    }


def test_a_cold_start_is_that_of_the_model_that_was_started(gpu: Report, prices: Prices) -> None:
    scene = replace(on_a_gpu("NVIDIA H200", gpu.scenes["sd15-1"], 30.0), scene=COLD)
    assert measured(Report({COLD: scene}), prices) == {"Stable Diffusion XL on H200": "cold start 30 s"}


def test_a_gpu_without_a_listed_price_is_left_out(gpu: Report, prices: Prices) -> None:
    scene = on_a_gpu("Some GPU", gpu.scenes["sd15-1"], 0.5)
    assert measured(Report({"sd15-1": scene}), prices) == {}


def make_fit(offload: Offload, fits: bool = True, loads: bool = True) -> Fit:
    """A plan of this kind."""
    return Fit(MemoryPlan(offload, False, "", fits=fits), loads)


def test_the_fastest_way_to_fit_is_told_and_of_those_the_one_that_changes_pictures_least() -> None:
    whole, parts, layers = make_fit("none"), make_fit("model"), make_fit("group")
    assert describe_fit({"none": whole, "fp8": whole, "4bit": whole}) == "whole"
    assert describe_fit({"none": layers, "fp8": parts, "8bit": whole, "4bit": whole}) == "whole, `QUANTIZE=8bit`"
    assert describe_fit({"none": layers, "fp8": parts, "4bit": make_fit("none", loads=False)}) == (
        "by component, `QUANTIZE=fp8`"
    )
    assert describe_fit({"none": make_fit("group", fits=False)}) == "no"


def test_fits_are_those_of_the_page_of_models(prices: Prices) -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    for model in PUBLISHED:
        whole = re.search(rf"## {re.escape(model.title)}\n\n.*All of it stays on a GPU of (\d+) GB", page)
        assert whole, model.title
        for pool in prices.pools:
            fits = find_fits(model, pool.gigabytes)["none"].stays
            assert fits == (pool.gigabytes >= int(whole[1])), (model.title, pool.id)


def test_pools_are_those_of_the_hub_and_prices_stand_in_one_file(prices: Prices) -> None:
    hub = json.loads((ROOT / ".runpod" / "hub.json").read_text())["config"]
    offered = [prices.pool(one) for one in hub["gpuIds"].split(",")]
    assert {re.findall(r"\d+ GB", preset["name"])[0] for preset in hub["presets"]} <= {
        f"{pool.gigabytes} GB" for pool in offered
    }
    assert prices.source.startswith("https://docs.runpod.io/") and prices.read.isoformat() in FILE.read_text()
    assert all(0 < pool.per_second < 0.01 for pool in prices.pools), "dollars a second, not an hour"


@pytest.mark.parametrize(
    ("gpu_name", "pool"),
    [
        ("NVIDIA H200", "HOPPER_141"),
        ("NVIDIA A100-SXM4-80GB", "AMPERE_80"),
        ("NVIDIA GeForce RTX 4090", "ADA_24"),
        ("NVIDIA L4", "AMPERE_24"),
        ("NVIDIA L40S", "ADA_48_PRO"),
        ("NVIDIA RTX 6000 Ada Generation", "ADA_48_PRO"),
        ("NVIDIA GeForce RTX 3060", None),
    ],
)
def test_a_gpu_is_in_its_pool(gpu_name: str, pool: str | None, prices: Prices) -> None:
    found = prices.find(gpu_name)
    assert (found.id if found else None) == pool


def test_the_plot_shows_everything_that_was_measured(gpu: Report, prices: Prices) -> None:
    root = ElementTree.fromstring(draw_costs(gpu, prices))
    texts = [one.text for one in root.iter(f"{SVG}text")]
    scene, price = gpu.scenes["sd15-1"], prices.pool("HOPPER_141").per_second
    assert {f"{1 / (case.median * price):,.0f}" for case in scene.cases} <= set(texts)
