"""A reader follows one job by opening the files in one order, and no file needs one that comes later.

The torch-free part (a request is checked, pictures are delivered) really imports without torch, in seconds less.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each file may import only files that stand above it.
ORDER = [
    "worker.errors",
    "worker.settings",
    "worker.logs",
    "worker.schedulers",
    "worker.families",
    "worker.nested_fields",
    "worker.rules",
    "worker.fields",
    "worker.explain",
    "worker.download",
    "worker.structure",
    "worker.inputs",
    "worker.framing",
    "worker.request",
    "worker.recipe",
    "worker.choices",
    "worker.parse",
    "worker.weights",
    "worker.models",
    "worker.addons",
    "worker.prompts",
    "worker.engine",
    "worker.engine.probe",
    "worker.engine.tasks",
    "worker.engine.memory",
    "worker.engine.repair",
    "worker.engine.finite",
    "worker.engine.quantize",
    "worker.engine.hub",
    "worker.engine.whole",
    "worker.engine.single_file",
    "worker.engine.vae",
    "worker.engine.preview",
    "worker.engine.loras",
    "worker.engine.image_prompt",
    "worker.engine.attach",
    "worker.engine.describe",
    "worker.engine.loading",
    "worker.engine.scheduling",
    "worker.engine.conditioning",
    "worker.engine.generate",
    "worker.progress",
    "worker.output",
    "worker.bucket",
    "worker.delivery",
    "worker.health",
    "worker.job",
    "handler",
]


def _path(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text())


def _imports(module: str) -> Iterator[str]:
    """Every dotted name that the file imports, wherever it stands in it; `from a import b` gives a and a.b."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; name the module in full"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in _imports(module)}


def test_every_file_has_its_place_in_the_order() -> None:
    files = {_path(module) for module in ORDER}
    assert files == {*(ROOT / "worker").rglob("*.py"), ROOT / "handler.py"} - {ROOT / "worker" / "__init__.py"}


@pytest.mark.parametrize("module", ORDER)
def test_a_file_imports_only_from_files_above_it(module: str) -> None:
    above = {"worker", *ORDER[: ORDER.index(module)]}
    own = {name for name in _imports(module) if name in ORDER}
    assert own <= above, f"{module} imports {sorted(own - above)}, which stand below it"


@pytest.mark.parametrize("module", [module for module in ORDER if module != "worker.settings"])
def test_only_settings_reads_the_environment(module: str) -> None:
    names = {node.attr for node in ast.walk(_tree(module)) if isinstance(node, ast.Attribute)}
    names |= {name.rpartition(".")[2] for name in _imports(module)}
    assert not names & {"environ", "environb", "getenv", "getenvb"}


@pytest.mark.parametrize("module", [module for module in ORDER if not module.startswith("worker.engine")])
def test_only_the_engine_imports_torch_and_diffusers(module: str) -> None:
    assert not _packages(module) & {"torch", "diffusers", "transformers", "accelerate", "peft"}


@pytest.mark.parametrize(
    "module",
    [module for module in ORDER if module not in ("handler", "worker.progress", "worker.health", "worker.download")],
)
def test_only_three_files_know_the_sdk_and_one_asks_it_about_addresses(module: str) -> None:
    assert "runpod" not in _packages(module)


@pytest.mark.parametrize("module", ["worker.parse", "worker.inputs", "worker.delivery", "worker.output"])
def test_requests_are_checked_and_pictures_delivered_without_torch(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'runpod', 'boto3'}"
    script = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
