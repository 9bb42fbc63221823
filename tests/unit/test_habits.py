"""The commands for everyday work: `make help` names them all, and running the worker installs no more than it needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)


def make(*arguments: str, folder: Path = ROOT) -> str:
    """What make prints; the tests may run under another make, which is not to be heard."""
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def plan(folder: Path, *arguments: str) -> str:
    """The commands that make would run in a new clone, with the set-ups in their order."""
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("requirements.txt", "requirements-gpu.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    return make("--dry-run", *arguments, folder=folder)


def test_help_names_every_command_and_what_it_does() -> None:
    listed = make("help").splitlines()
    assert [line.split()[0] for line in listed] == TARGETS
    assert len({line.index(line.split()[1]) for line in listed}) == 1, "the texts are aligned"


def test_every_command_is_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY:(.*)", MAKEFILE.replace("\\\n", " "), re.MULTILINE)
    assert sorted(phony.split()) == sorted(TARGETS)


def test_running_installs_no_tools_of_development(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    assert planned.endswith("handler.py\n"), "which is what make does by itself"
    assert "-r requirements.txt" in planned
    assert "-dev" not in planned and "-gpu" not in planned


@pytest.mark.parametrize("target", ["test", "check"])
def test_tests_and_checks_install_all(target: str, tmp_path: Path) -> None:
    planned = plan(tmp_path, target)
    assert planned.index("-r requirements.txt") < planned.index("-r requirements-dev.txt")


def test_the_workflow_runs_what_ci_runs_with_official_actions() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)
