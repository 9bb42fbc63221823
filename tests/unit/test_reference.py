"""What the documentation says of fields, settings, schedulers and families is what the code does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _reference(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "docs/reference.py", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the documentation is made from and of what it is made into."""
    for name in ("worker", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def _refused(root: Path) -> str:
    checked = _reference(root, "--check")
    assert checked.returncode == 1
    return checked.stderr


def test_the_documentation_is_current() -> None:
    checked = _reference(ROOT, "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["fields", "settings", "schedulers", "families"])
def test_a_readme_with_a_table_that_has_drifted_is_refused(copy: Path, name: str) -> None:
    readme = copy / "README.md"
    text = readme.read_text()
    before, mark, after = text.partition(f"<!-- {name} -->\n")
    assert mark
    readme.write_text(before + mark + after.replace("`", "'", 1))
    assert "README.md" in _refused(copy)


def test_a_readme_without_a_table_is_refused(copy: Path) -> None:
    readme = copy / "README.md"
    readme.write_text(readme.read_text().replace("<!-- /settings -->", ""))
    assert "settings" in _refused(copy)


def test_a_bound_changed_in_the_code_makes_the_documentation_stale(copy: Path) -> None:
    fields = copy / "worker" / "fields.py"
    fields.write_text(fields.read_text().replace("le=8192", "le=4096"))
    told = _refused(copy)
    assert "README.md" in told and "request.schema.json" in told
    assert _reference(copy).returncode == 0  # written again
    assert "64 to 4096" in (copy / "README.md").read_text()


def test_the_schema_describes_requests_of_this_worker() -> None:
    schema = json.loads((ROOT / "docs" / "request.schema.json").read_text())
    assert schema["required"] == ["prompt"] and schema["additionalProperties"] is False
    for example in json.loads((ROOT / "test_input.json").read_text())["input"]:
        assert example in schema["properties"]
