"""What the documentation says of fields, settings, schedulers and families is what the code does."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import worker.errors
from tests.helpers.quick_python import PRELUDE
from tools.configuration import GROUPS
from tools.fields import list_errors, read_attributes
from tools.house import list_files
from worker.api.response import Answer, Timings
from worker.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
BUCKET = {f"BUCKET_{part}": "x" for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
BUCKET["BUCKET_ENDPOINT_URL"] = "https://s3.example.com"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """tools/reference.py, here: a process for each check would mostly import diffusers."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], object]:
    """What `python -m tools.reference --check` leaves with in this folder: 0, or what has drifted."""

    def checked(root: Path) -> object:
        monkeypatch.setattr(reference, "ROOT", root)
        monkeypatch.setattr(sys, "argv", ["reference", "--check"])
        with pytest.raises(SystemExit) as left:
            reference.main()
        return left.value.code

    return checked


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the documentation is made from and of what it is made into."""
    ignored = shutil.ignore_patterns("__pycache__", "*.png", "node_modules")
    for name in ("worker", "docs", "tools", "examples", "benchmarks", ".runpod"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("README.md", "handler.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_documentation_is_current(check: Callable[[Path], object]) -> None:
    assert check(ROOT) == 0


TABLES = [
    ("README.md", "map"),
    *(("docs/api.md", name) for name in ("fields", "answer", "timings", "errors", "schedulers")),
    ("docs/configuration.md", "settings"),
    ("docs/deploy.md", "pools"),
    *(("docs/models.md", name) for name in ("families", "overview", "tasks")),
    ("docs/requests.md", "elsewhere"),
]


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_a_page_with_a_table_that_has_drifted_is_refused(
    copy: Path, page: str, name: str, check: Callable[[Path], object]
) -> None:
    text = (copy / page).read_text()
    before, mark, after = text.partition(f"<!-- {name} -->\n")
    assert mark
    (copy / page).write_text(before + mark + after.replace("|", "/", 1))
    assert check(copy) == f"not current: {page}; run `make docs`"


@pytest.mark.parametrize("name", ["models", "memory"])
def test_a_page_of_models_that_has_drifted_is_refused(copy: Path, name: str, check: Callable[[Path], object]) -> None:
    page = copy / "docs" / "models.md"
    before, mark, after = page.read_text().partition(f"<!-- {name} -->\n")
    assert mark
    page.write_text(before + mark + after.replace(" GB", " TB", 1))
    assert check(copy) == "not current: docs/models.md; run `make docs`"


@pytest.mark.parametrize(("page", "name"), [("docs/configuration.md", "settings"), ("README.md", "map")])
def test_a_page_without_its_table_is_refused(copy: Path, page: str, name: str, check: Callable[[Path], object]) -> None:
    (copy / page).write_text((copy / page).read_text().replace(f"<!-- /{name} -->", ""))
    assert name in str(check(copy))


def test_a_bound_changed_in_the_code_changes_the_documentation(copy: Path, check: Callable[[Path], object]) -> None:
    fields = copy / "worker" / "api" / "schema.py"
    fields.write_text(fields.read_text().replace("le=8192", "le=4096"))
    run = f"{PRELUDE}\nimport runpy; runpy.run_module('tools.reference', run_name='__main__')"
    written = subprocess.run([sys.executable, "-c", run], cwd=copy, capture_output=True, text=True, timeout=120)
    assert written.returncode == 0, written.stderr
    assert "64 to 4096" in (copy / "docs" / "api.md").read_text()
    told = str(check(copy))  # by the code as it is
    assert "docs/api.md" in told and "request.schema.json" in told


def test_the_map_shows_every_file_of_the_worker_once() -> None:
    files = {path for path in (ROOT / "worker").rglob("*.py") if path.name != "__init__.py"}
    expected = sorted(str(path.relative_to(ROOT)) for path in {*files, ROOT / "handler.py"})
    assert sorted(list_files()) == expected


def test_the_readme_leads_to_every_folder_and_every_link_leads_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link}
    assert [link for link in links if link and not (ROOT / link).exists()] == []
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.partition("/")[0] for line in tracked.splitlines() if "/" in line}
    assert {one for one in folders if not one.startswith(".")} - {"worker"} <= {
        link.partition("/")[0] for link in links
    }


def test_every_setting_stands_in_one_group() -> None:
    shown = [name.lower() for group in GROUPS for name in group.examples]
    assert sorted(shown) == sorted(Settings.model_fields)


@pytest.mark.parametrize(("name", "example"), [pair for group in GROUPS for pair in group.examples.items()])
def test_an_example_of_a_setting_is_one_that_the_worker_takes(
    name: str, example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("exists", "check_folder"):  # the volume is not here
        monkeypatch.setattr(f"worker.settings.{other}", lambda path: True)
    filled = re.sub(r"{{ RUNPOD_SECRET_\w+ }}", "secret", example)  # as RunPod does before a worker starts
    for key, value in {**BUCKET, name: filled}.items():
        monkeypatch.setenv(key, value)
    taken = getattr(read_settings(), name.lower())
    assert taken is not None and taken != Settings.model_fields[name.lower()].default


def test_every_key_of_an_answer_and_every_code_is_explained() -> None:
    for kind in (Answer, Timings):
        assert read_attributes(kind).keys() == kind.__dataclass_fields__.keys()
    codes = set(re.findall(r"^    [│├└ ]*── \w+ +([A-Z_]+)", worker.errors.__doc__ or "", re.MULTILINE))
    assert codes and codes == {error.code for error in list_errors()}


def test_the_schema_describes_requests_of_this_worker() -> None:
    schema = json.loads((ROOT / "docs" / "request.schema.json").read_text())
    assert {"required": ["prompt"]} in schema["anyOf"] and schema["additionalProperties"] is False
    for example in json.loads((ROOT / "test_input.json").read_text())["input"]:
        assert example in schema["properties"]
