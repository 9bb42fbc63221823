"""A tag is released only if the code, the changelog and the Hub's files say the same as the tag."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tools.hub import HUB, find_hub_problems, name_repository
from tools.release import CHANGELOG, VERSIONS, find_problems, read_sections

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what is checked, ready to be released as 7.8.9."""
    for name in (*VERSIONS, CHANGELOG, "README.md", str(HUB)):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for name, form in VERSIONS.items():
        if (tmp_path / name).exists():
            text = (tmp_path / name).read_text()
            (tmp_path / name).write_text(form.sub(lambda held: held[0].replace(held[1], "7.8.9"), text))
    _edit(tmp_path / CHANGELOG, "## [Unreleased]", "## [Unreleased]\n\n## [7.8.9] - 2027-01-01")
    return tmp_path


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_what_agrees_is_released_with_what_the_changelog_says(copy: Path) -> None:
    assert [*find_problems(copy, "v7.8.9")] == []
    notes = read_sections(copy)["7.8.9"]
    assert notes.startswith("### ") and "## [" not in notes
    assert notes == read_sections(ROOT)["Unreleased"]


def test_a_tag_of_another_version_is_refused(copy: Path) -> None:
    told = [*find_problems(copy, "v7.8.10")]
    assert "pyproject.toml says 7.8.9, the tag 7.8.10" in told
    assert "the newest version in CHANGELOG.md is 7.8.9, the tag 7.8.10" in told


@pytest.mark.parametrize("tag", ["7.8.9", "v7.8", "v7.8.9-rc1", "latest", "v7.8.9\n"])
def test_a_tag_of_another_form_is_refused(copy: Path, tag: str) -> None:
    (told,) = find_problems(copy, tag)
    assert "should be like v0.2.0" in told


def test_changes_that_are_in_no_version_are_noticed(copy: Path) -> None:
    _edit(copy / CHANGELOG, "## [Unreleased]\n", "## [Unreleased]\n\n- One more.\n")
    (told,) = find_problems(copy, "v7.8.9")
    assert "under [Unreleased]" in told


def test_a_version_without_changes_is_refused(copy: Path) -> None:
    _edit(copy / CHANGELOG, "## [7.8.9] - 2027-01-01\n", "## [7.8.9] - 2027-01-01\n\n## [0.2.0]\n")
    assert [*find_problems(copy, "v7.8.9")] == ["CHANGELOG.md says nothing of 7.8.9"]


def test_the_code_is_of_the_newest_version_in_the_changelog() -> None:
    newest = next(name for name in read_sections(ROOT) if name != "Unreleased")
    for name, form in VERSIONS.items():
        held = form.search((ROOT / name).read_text()) if (ROOT / name).exists() else None
        assert held is None or held[1] == newest, name


def test_the_hub_is_told_whose_repository_this_is(copy: Path) -> None:
    (told,) = find_hub_problems(copy, "someone/pictures")
    assert "python -m tools.hub --repository someone/pictures" in told
    name_repository(copy, "someone/pictures")
    assert find_hub_problems(copy, "someone/pictures") == []
    readme = (copy / "README.md").read_text()
    assert "https://api.runpod.io/badge/someone/pictures" in readme and "deploy-on-runpod.svg" not in readme
    name_repository(copy, "another/name")
    assert "someone" not in (copy / "README.md").read_text() + (copy / HUB).read_text()


@pytest.mark.parametrize("name", ["pictures", "a/b/c", "https://github.com/a/b", "a b/c", ""])
def test_what_is_no_repository_is_refused(copy: Path, name: str) -> None:
    with pytest.raises(SystemExit, match="owner/name"):
        name_repository(copy, name)


def test_the_workflow_releases_nothing_that_is_not_checked_and_tested() -> None:
    check, release = (WORKFLOW["jobs"][name] for name in ("check", "release"))
    runs = [step.get("run", "") for step in check["steps"]]
    assert any("tools.release" in run and "--repository" in run for run in runs) and ".ci/run" in runs
    assert release["needs"] == "check"
    assert check.get("permissions", WORKFLOW["permissions"]) == {"contents": "read"}
    (build,) = (step["with"] for step in release["steps"] if "build-push-action" in step.get("uses", ""))
    assert build["platforms"] == "linux/amd64" and build["push"] is True


def test_the_workflow_uses_actions_of_github_and_docker_alone() -> None:
    used = [step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"(actions|docker)/[a-z-]+@v\d+", action) for action in used)
