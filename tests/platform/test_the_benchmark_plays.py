"""The benchmark's scenes play, in short and with tiny models, and leave all that the document shows of them."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmark
from benchmarks import cold, overhead, several_gpus, waiting_jobs
from benchmarks.models import make_tiny
from benchmarks.play import Task, play
from benchmarks.results import SceneResult, add, read
from tools.performance import list_rows, read_reports, write_document


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of all scenes are but one's, which the benchmark has to make: each takes a process there."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("sd15", "sdxl", "flux", "z-image", "klein", "qwen", "chroma"):
        make_tiny(name).save_pretrained(folder / f"{name}-tiny", safe_serialization=True)
    return folder


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command line has it for a CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@cache
def play_once(scene: str, models: Path) -> SceneResult:
    """One round of it, once for all tests."""
    return play(Task(scene, "tiny", str(models), out="", rounds=1, ours=[{}], keep_cache=True))


def cells(result: SceneResult) -> dict[str, dict[str, str]]:
    """The document's table: by a row's first cell, the others by their heads."""
    head, *rows = list_rows(result)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_one_picture(models: Path) -> None:
    table = cells(play_once("sdxl-1", models))
    ours = table["this worker"]
    assert all(ours.values()), ours
    assert {"median", "of plain diffusers", "times the floor", "load", "first job", "PSNR to plain"} <= set(ours)
    assert ours["PSNR to plain"] == "the same pixels", "a CPU draws what plain diffusers draws"
    assert table["worker-sdxl's settings"]["of plain diffusers"]


@pytest.mark.parametrize("scene", ["embedded-1", "z-image-1", "klein-1", "qwen-1", "chroma-1", "sd35-1"])
def test_a_cpu_draws_the_pixels_of_plain_diffusers(scene: str, models: Path) -> None:
    assert cells(play_once(scene, models))["this worker"]["PSNR to plain"] == "the same pixels"


def test_the_command_adds_a_scene_and_fails_beyond_twice_a_recorded_ratio(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Played in this process: another would mostly import."""
    out, recorded, seen = tmp_path / "cpu.json", tmp_path / "recorded.json", play_once("klein-1", models)
    plain = replace(seen.case("plain diffusers"), seconds=(1000.0,))  # beside which everything takes next to nothing
    add(recorded, replace(seen, scene="flux-1", cases=(plain, seen.case("this worker"))))
    add(out, seen)
    command = ["benchmarks", "--device", "cpu", "--rounds", "1", "--models", str(models)]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out), "--compare", str(recorded), "flux-1"])
    monkeypatch.setattr(subprocess, "run", run_here)
    with pytest.raises(SystemExit) as left:
        benchmark.main()

    report, told = read(out), capsys.readouterr()
    assert set(report.scenes) == {"klein-1", "flux-1"}
    ours = cells(report.scenes["flux-1"])["this worker"]
    assert f"{ours['of plain diffusers']} of plain diffusers" in told.out
    assert left.value.code == 1 and "flux-1: this worker took" in told.err
    assert told.out.count("flux-1: slow, hence once more") == 1


def run_here(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
    """What `python -m benchmarks.play` does."""
    task = Task(**json.loads(command[-1]))
    add(Path(task.out), play(task))
    return subprocess.CompletedProcess(command, 0)


def test_four_pictures_in_one_job(models: Path) -> None:
    table = cells(play_once("sd15-4", models))
    assert table["this worker"]["PSNR to plain"] and table["this worker"]["a picture"]


def test_the_forum_posts_code_is_among_the_baselines(models: Path) -> None:
    table = cells(play_once("sd15-1", models))
    assert list(table) == ["plain diffusers", "the forum post's code", "this worker"]
    assert table["this worker"]["of the forum post's code"]


def test_loading(models: Path) -> None:
    table = cells(play_once("load", models))
    assert list(table) == ["plain diffusers", "this worker"]
    assert all("GB/s" in row["seen"] for row in table.values()), table


def test_waiting_jobs(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_jobs, "DRAWN_JOBS", 2)
    monkeypatch.setattr(waiting_jobs, "HOLD_S", 0.25)
    result = play_once("jobs-16", models)
    eight = {what: f"this worker, `JOBS_AT_ONCE=8`: {what}" for what in ("delivered", "drawing")}
    one = {what: name.replace("=8", "=1") for what, name in eight.items()}
    assert set(result.ratios()) == {(eight[what], one[what]) for what in eight}
    assert all(result.case(one[what]).median > 0 for what in one)
    assert result.case(one["drawing"]).median < result.case(one["delivered"]).median


@pytest.mark.parametrize(
    ("scene", "settings"), [("gpus-8", "GPUS=2"), ("gpus-split-sd15", "GPUS_PER_PICTURE=2")], ids=["divided", "split"]
)
def test_one_gpu_against_several(scene: str, settings: str, models: Path) -> None:
    """Here several engines on the CPU; what each has drawn is the same."""
    result = play_once(scene, models)
    alone, together = result.cases
    assert list(result.ratios()) == [(together.name, alone.name)]
    assert "`GPUS=1`" in alone.name and settings in together.name
    assert together.quality is not None and together.quality.psnr_db is None


@pytest.mark.parametrize(("there", "numbers"), [(2, [2]), (3, [2, 3]), (4, [2, 4]), (6, [2, 4, 6])])
def test_gpus_are_doubled_until_all_draw(there: int, numbers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_gpus, "WITHOUT_A_GPU", there)
    assert several_gpus.list_numbers() == numbers


def test_one_gpu_cannot_play_a_scene_about_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_gpus, "WITHOUT_A_GPU", 1)
    with pytest.raises(RuntimeError, match="several GPUs"):
        several_gpus.list_numbers()


def test_jobs_that_sleep(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_jobs, "PACES_S", (0.3,))
    monkeypatch.setattr(waiting_jobs, "AT_ONCE", (4,))
    monkeypatch.setattr(waiting_jobs, "PACED_JOBS", 2)
    monkeypatch.setattr(waiting_jobs, "HOLD_S", 0.25)
    result = play_once("between-jobs", models)
    assert [case.name for case in result.cases] == ["0.3 s, a plain function", "0.3 s, `JOBS_AT_ONCE=4`"]
    assert all(case.median >= 0.3 for case in result.cases), "a job takes its own time at least"


def test_a_start_is_told_part_by_part(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "WARM_UPS", 0)
    result = play_once("cold", models)
    for name in (cold.PLAIN, cold.OURS):
        parts = [result.case(f"{name}: {part}").median for part in cold.PARTS]
        assert min(parts) > 0 and sum(parts) == pytest.approx(result.case(name).median)
        assert int(result.case(name).notes.split()[0].replace(",", "")) > 1000, "torch alone has as many modules"


def test_all_that_a_job_costs_is_in_the_parts(models: Path) -> None:
    result = play_once("overhead", models)
    for side in overhead.SIDES:
        whole = f"{side}x{side}"
        parts = [case for case in result.cases if case.part_of == whole]
        assert [case.name for case in parts] == [
            f"{whole}: {part}" for part in (*overhead.PARTS.values(), overhead.REST)
        ]
        assert sum(case.median for case in parts) == pytest.approx(result.case(whole).median)


def test_the_document_shows_what_was_played(models: Path, tmp_path: Path) -> None:
    add(tmp_path / "cpu.json", play_once("overhead", models))
    section = write_document(read_reports(tmp_path)).partition("## `overhead`")[2].partition("\n## ")[0]
    assert "encoding PNG" in section
