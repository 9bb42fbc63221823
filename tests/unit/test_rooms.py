"""The house has rooms, and a room knows only what stands below it; inside the engine, too.

The torch-free rooms (a request is checked, pictures are delivered) really import without torch, in seconds less.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Which know nothing of ours at all.
GROUND = {
    "worker.clock",
    "worker.http",
    "worker.main_memory",
    "worker.nearest",
    "worker.spared_imports",
    "worker.waiting",
    "worker.text",
    "worker.version",
}
# Lowest first. What stands in one row does not know its neighbours, unless SAME_FLOOR says so.
ROOMS = [
    GROUND,
    {"worker.errors", "worker.files", "worker.setting_names"},
    {"worker.environment"},
    {"worker.settings"},
    {"worker.models", "worker.request", "worker.images"},
    {"worker.packages", "worker.plan", "worker.read_ahead"},
    {"worker.output"},
    {"worker.api", "worker.engine"},
    {"worker.runtime"},
    {"handler"},
]
SAME_FLOOR = {("worker.request", "worker.models")}

E = "worker.engine"
# Lowest first; inside a row, a file may import its neighbours.
ENGINE = [
    {f"{E}.__init__"},
    {
        f"{E}.{name}"
        for name in (
            "device_errors",
            "meter",
            "steps",
            "writing",
            "scheduling",
            "pipelines",
            "preview",
            "decoder",
            "denoiser",
            "cache",
            "refusals",
            "unreadable",
            "weights",
            "memory_plan",
            "bring",
            "warm_device",
        )
    },
    {f"{E}.spread"},
    {f"{E}.{name}" for name in ("adapters", "memory", "recovery", "batch_size")},
    {f"{E}.engine", f"{E}.grouping"},
    {f"{E}.load", f"{E}.prompts"},
    {f"{E}.drawing"},
    {f"{E}.passes"},
    {f"{E}.batch"},
    {f"{E}.generate"},
    {f"{E}.self_test", f"{E}.trials", f"{E}.warm_up"},
    {f"{E}.start_trials", f"{E}.model_trial"},
]
APART = {(f"{E}.load", f"{E}.prompts"), (f"{E}.prompts", f"{E}.load")}


def _modules() -> dict[str, Path]:
    """Every module of the worker, a package under its own name."""
    files = {path.relative_to(ROOT): path for path in (ROOT / "worker").rglob("*.py")}
    named = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): file for path, file in files.items()}
    return {**named, "handler": ROOT / "handler.py"}


MODULES = _modules()


@cache
def _nodes(module: str) -> list[ast.AST]:
    """All there is in the file, in whatever depth."""
    return list(ast.walk(ast.parse(MODULES[module].read_text())))


@cache
def _imports(module: str) -> frozenset[str]:
    """Every dotted name that the file imports, wherever it stands in it; `from a import b` gives a.b if that is one."""
    return frozenset(_each_import(module))


def _each_import(module: str) -> Iterator[str]:
    for node in _nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; name the module in full"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in inner)


def _own(module: str) -> set[str]:
    return {name for name in _imports(module) if name.partition(".")[0] in ("worker", "handler")}


def _room(module: str, rows: list[set[str]]) -> tuple[int, str] | None:
    """The floor and the name of the room that a module stands in."""
    for floor, row in enumerate(rows):
        for room in row:
            if module == room or module.startswith(f"{room}.") or room == f"{module}.__init__":
                return floor, room
    return None


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"worker"}))
def test_every_file_stands_in_a_room(module: str) -> None:
    assert _room(module, ROOMS) is not None
    if module.startswith(E):
        assert _room(module, ENGINE) is not None


def test_the_rooms_are_those_that_contributors_read_of() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    told = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert told == [{room.removeprefix("worker.") for room in row} for row in ROOMS]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"worker"}))
def test_a_room_knows_only_the_rooms_below_it(module: str) -> None:
    place = _room(module, ROOMS)
    assert place is not None
    floor, room = place
    for name in _own(module):
        other_floor, other = _room(name, ROOMS) or (99, name)
        if other != room:
            assert room not in GROUND, f"{module} imports {name}, and stands on the ground"
            assert other_floor < floor or (room, other) in SAME_FLOOR, f"{module} imports {name}, which is not below it"


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith(E)))
def test_inside_the_engine_too(module: str) -> None:
    place = _room(module, ENGINE)
    assert place is not None
    floor, room = place
    for name in _own(module):
        if name.startswith(E):
            other_floor, other = _room(name, ENGINE) or (99, name)
            assert other_floor <= floor and (room, other) not in APART, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith(E)))
def test_the_engine_sees_no_bucket_no_output_format_and_no_source_of_a_picture(module: str) -> None:
    outside = {name for name in _own(module) if name.startswith(("worker.output", "worker.images", "worker.http"))}
    assert outside <= {"worker.images.resize"}, f"{module} imports {outside}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"worker"}))
def test_nothing_is_imported_behind_the_walls(module: str) -> None:
    text = MODULES[module].read_text()
    assert "import_module" not in text and "__import__" not in text


def test_no_two_public_classes_or_functions_of_the_worker_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for module, file in MODULES.items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"worker"}))
def test_no_room_takes_another_rooms_private_names(module: str) -> None:
    for node in _nodes(module):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("worker"):
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private, f"{module} takes {private} from {node.module}"
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and isinstance(node.value, ast.Name):
            modules = {name.rpartition(".")[2] for name in _own(module) if name in MODULES}
            assert node.value.id not in modules - {"self"}, f"{module} takes {node.value.id}.{node.attr}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"worker.environment", "worker.settings"}))
def test_only_settings_reads_the_environment(module: str) -> None:
    names = {node.attr for node in _nodes(module) if isinstance(node, ast.Attribute)}
    names |= {name.rpartition(".")[2] for name in _imports(module)}
    assert not names & {"environ", "environb", "getenv", "getenvb"}


def _packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in _imports(module)}


@pytest.mark.parametrize("module", sorted(module for module in MODULES if not module.startswith(E)))
def test_only_the_engine_imports_torch_and_diffusers(module: str) -> None:
    assert not _packages(module) & {"torch", "diffusers", "transformers", "accelerate", "peft"}


@pytest.mark.parametrize(
    "module", sorted(one for one in MODULES if not one.startswith(("worker.runtime", "worker.http", "handler")))
)
def test_only_the_runtime_knows_the_sdk_and_http_asks_it_about_addresses(module: str) -> None:
    assert "runpod" not in _packages(module)


def test_http_knows_nothing_of_ours_and_no_pictures() -> None:
    assert _own("worker.http") == set() and "PIL" not in _packages("worker.http")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_http_makes_sockets(module: str) -> None:
    clients = {"socket", "aiohttp", "requests", "httpx", "urllib3", "urllib.request", "http.client"}
    found = (_packages(module) | _imports(module)) & clients
    assert found <= ({"socket", "aiohttp"} if module == "worker.http" else set())


@pytest.mark.parametrize("room", ["api.parse", "images.load", "models.locate", "models.hub", "output.delivery", "plan"])
def test_requests_are_checked_and_pictures_delivered_without_torch(room: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'runpod', 'boto3'}"
    script = f"import sys, worker.{room}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
