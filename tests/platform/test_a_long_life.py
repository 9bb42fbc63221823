"""Forty mixed jobs, one in five hostile, through one worker: a result each, nothing told, nothing growing.

`make soak` is the same for two thousand jobs.
"""

import sys

import pytest

from benchmarks import soak
from tests.helpers import tiny_addons, tiny_models

JOBS = 40
SEED = 287  # with which all good kinds and nine of the ten hostile ones come up


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> soak.Report:
    folder = tmp_path_factory.mktemp("long_life")
    pipeline = tiny_models.sd1()
    model = tiny_models.save(pipeline, folder / "model")
    lora = tiny_addons.lora(pipeline, folder / "loras" / "neon.safetensors", seed=1)
    return soak.soak(JOBS, {"MODEL_NAME": str(model), "LORA_DIR": str(lora.parent)}, SEED)


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_soak_of_no_jobs_is_refused_in_one_line(
    count: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", f"--jobs={count}"])

    with pytest.raises(SystemExit, match="2"):
        soak.main()

    assert f"{count!r} is no number of jobs; 1 or more" in capsys.readouterr().err.splitlines()[-1]


def test_every_job_has_one_right_result_and_no_secret_is_told(report: soak.Report) -> None:
    assert report.wrong == []
    assert sum(report.sent.values()) == JOBS


def test_good_and_hostile_jobs_were_among_them(report: soak.Report) -> None:
    assert set(report.sent) >= set(soak.GOOD)
    assert len(set(report.sent) & set(soak.HOSTILE)) >= 6


def test_threads_and_open_files_come_back_to_what_they_were(report: soak.Report) -> None:
    """At any one moment there may be some more, of a connection that is just being closed."""
    for counts in (report.threads, report.files):
        assert min(counts[-3:]) <= min(counts[:3]) + 1


def test_memory_is_not_lost_with_each_job(report: soak.Report) -> None:
    """A picture of 16,000 by 16,000 that was decoded, or a model's copy kept for each job, would be far more."""
    warm = report.memory_mb[2:]
    assert max(warm) - warm[0] < 60
