"""What the benchmark writes down is what its document and continuous integration read of it."""

import base64
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import list_slower
from benchmarks.results import FOLDER, Case, Floor, Machine, Quality, Report, SceneResult, add, read
from benchmarks.scenes import ON_A_CPU
from benchmarks.waiting_jobs import count_drawing
from tools.chart import draw_chart
from tools.performance import draw_charts, list_rows, read_reports, write_document, write_quality

MACHINE = Machine("Some GPU", "Some CPU", 2, {"torch": "2.13.0"})
PLAIN = Case("plain diffusers", (2.0, 4.0, 3.0), load_s=5.0, first_s=6.0, second_s=3.5, peak_bytes=7_500_000_000)
OURS = Case("this worker", (1.0, 1.5, 9.0), ("plain diffusers",), quality=Quality(61.25, 6, 40.0))
SCENE = SceneResult(
    "sd15-4", "a model", 4, "2026-01-02T03:04:05+00:00", MACHINE, (PLAIN, OURS), Floor(50.0, 500.0, 4.0, "float16")
)


def slower(factor: float) -> Report:
    """The scene with this worker's seconds so many times as long."""
    ours = replace(OURS, seconds=tuple(one * factor for one in OURS.seconds))
    return Report({"sd15-4": replace(SCENE, cases=(PLAIN, ours))})


def test_what_is_written_is_read_and_other_scenes_stay(tmp_path: Path) -> None:
    path, other = tmp_path / "results" / "gpu.json", replace(SCENE, scene="sd15-1", floor=None)
    for result in (other, replace(SCENE, subject="another"), SCENE):
        add(path, result)
    assert read(path) == Report({"sd15-1": other, "sd15-4": SCENE})


def test_every_rounds_seconds_are_in_the_file(tmp_path: Path) -> None:
    add(tmp_path / "gpu.json", SCENE)
    kept = json.loads((tmp_path / "gpu.json").read_text())["scenes"]["sd15-4"]
    assert [case["seconds"] for case in kept["cases"]] == [[2.0, 4.0, 3.0], [1.0, 1.5, 9.0]]
    assert (kept["machine"]["gpu"], kept["machine"]["cpu"]) == ("Some GPU", "Some CPU")


def test_the_table_holds_medians_ratios_floor_memory_and_quality() -> None:
    head, plain, ours = list_rows(SCENE)
    assert dict(zip(head, plain, strict=True)) == {
        "": "plain diffusers",
        "median": "3 s",
        "lowest to highest": "2 s to 4 s",
        "a picture": "0.75 s",
        "of plain diffusers": "",
        "times the floor": "30.00",
        "load": "5 s",
        "first job": "6 s",
        "second job": "3.5 s",
        "peak memory": "7.50 GB",
        "PSNR to plain": "",
    }
    shown = dict(zip(head, ours, strict=True))
    assert (shown["median"], shown["of plain diffusers"]) == ("1.5 s", "0.50")
    assert shown["PSNR to plain"] == "61.2 dB, at most 6 of 255"


def test_equal_and_flat_pictures_are_told() -> None:
    assert write_quality(Quality(None, 0, 40.0)) == "the same pixels"
    assert write_quality(Quality(None, 0, 0.5)) == "the pictures are flat"


@pytest.mark.parametrize(("factor", "problems"), [(0.1, 0), (1.9, 0), (2.1, 1)])
def test_only_what_takes_more_than_twice_its_recorded_share_is_a_failure(factor: float, problems: int) -> None:
    assert len(list(list_slower(slower(factor), slower(1.0), ["sd15-4"]))) == problems


def test_a_scene_that_was_never_recorded_is_no_failure() -> None:
    assert list(list_slower(slower(5.0), Report(), ["sd15-4"])) == []


def test_a_ratio_that_was_not_recorded_is_told() -> None:
    renamed = replace(SCENE, cases=(PLAIN, replace(OURS, name="another name")))
    (told,) = list_slower(Report({"sd15-4": renamed}), slower(1.0), ["sd15-4"])
    assert "another name" in told and "not recorded" in told


def test_drawing_of_jobs_that_were_drawn_at_once_counts_once() -> None:
    def line(job: str, batch: int, seconds: float) -> str:
        figures = {"requestId": job, "batch": batch, "text_s": 0.5, "denoise_s": seconds, "decode_s": 0.5}
        return json.dumps(figures)

    beside = json.dumps({"requestId": "a", "message": "Finished."})  # another thread's, in the same line
    log = f"{line('a', 2, 3.0)}{beside}\n{line('b', 2, 3.0)}\nnoise {line('c', 1, 1.0)}"
    assert count_drawing(log, ["a", "b", "c"]) == pytest.approx(4.0 + 2.0)


def test_quality_is_that_of_the_worst_picture() -> None:
    from benchmarks.pictures import compare

    def uri(value: int) -> str:
        pixels = np.tile(np.array([[0, 100]], dtype=np.uint8), (8, 4))
        pixels[0, 0] = value
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    same, seen = compare([uri(0)], [uri(0)]), compare([uri(1), uri(8)], [uri(0), uri(0)])
    assert (same.psnr_db, same.largest_difference) == (None, 0)
    assert seen.largest_difference == 8
    assert seen.psnr_db == pytest.approx(10 * math.log10(255**2 / (64 / 64)))
    assert seen.contrast == pytest.approx(50.0)


def test_a_chart_shows_each_case_by_its_median() -> None:
    (drawing,) = draw_charts({"gpu": Report({"sd15-4": SCENE})}).values()
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(drawing)
    _, *bars = (float(one.attrib["width"]) for one in root.iter(f"{svg}rect"))
    assert len(bars) == 2 and bars[0] == pytest.approx(bars[1] * 2, rel=0.01)
    assert {"plain diffusers", "this worker", "3 s", "1.5 s"} == {one.text for one in root.iter(f"{svg}text")}


def test_a_label_cannot_break_a_chart() -> None:
    from tools.chart import Bar

    drawn = ElementTree.fromstring(draw_chart([Bar("<a> & b", 1.0, 1.0, 1.0, "1 s", False)], 0.5))
    assert "<a> & b" in [one.text for one in drawn.iter()]


def test_the_document_says_what_was_not_measured() -> None:
    text = write_document({"gpu": Report({"sd15-4": SCENE})})
    assert "**Some GPU**" in text.partition("## `sd15-4`")[2].partition("\n## ")[0]
    assert "## `sdxl-1`" not in text and "`sdxl-1`" in text.partition("Not measured yet: ")[2]


def test_every_scene_for_a_cpu_is_recorded() -> None:
    assert set(read(FOLDER / "cpu.json").scenes) >= set(ON_A_CPU)
    assert "cpu" in read_reports(FOLDER)
