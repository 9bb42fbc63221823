"""Run a case: start it, ask it once, and write down what is seen."""

import subprocess
import time
from pathlib import Path

from examples.cuda_and_fork.harness import gpu
from examples.cuda_and_fork.harness.cases import Case
from examples.cuda_and_fork.harness.process_tree import Node, name_processes, read_tree
from examples.cuda_and_fork.harness.results import CUDA, Seen
from examples.cuda_and_fork.harness.running import DEVICE, Note
from examples.cuda_and_fork.harness.serving import SERVE, Served

LOADED = "loaded"
ROLES = {LOADED: "loads", "drew": "draws", "failed": "fails"}
MAX_SIDE_BY_SIDE_S = 60.0
HIDE_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def observe(case: Case, python: Path, device: str, folder: Path) -> Seen:
    """Start the case with this Python, send a request, look, and end it. Files go into `folder`."""
    before = gpu.used_mib() if device == CUDA else None
    env = {DEVICE: device} if device == CUDA else {DEVICE: device, **HIDE_GPU}
    with SERVE[case.client](case, python, env, folder) as served:
        answer = served.ask()
        wait_for_loads(served, case.loads)
        notes, tree = served.notes(), read_tree(served.pid)
        held = None if before is None else max(0, (gpu.used_mib() or 0) - before)
        failures = [note.text for note in notes if note.event == "failed"]
        silent = tree is None or answer.startswith("HTTP")  # who failed has noted nothing
        error = failures[-1] if failures else served.last_error() if silent else ""
    gpu.wait_for_release(before)
    loaded = [note.pid for note in notes if note.event == LOADED]
    version, initialised = read_version(python, case.package), name_processes(tree, loaded)
    return Seen(version, render(tree, notes), len(loaded), initialised, answer, error, held)


def wait_for_loads(served: Served, loads: int) -> None:
    """Wait until this many have loaded, where several do so side by side; for a minute at most."""
    deadline = time.monotonic() + MAX_SIDE_BY_SIDE_S
    while sum(note.event == LOADED for note in served.notes()) < loads and time.monotonic() < deadline:
        time.sleep(0.1)


def render(tree: Node | None, notes: list[Note]) -> str:
    """The tree with what each process did; what it did several times stands there once."""
    done: dict[int, list[str]] = {}
    for note in notes:
        role, told = ROLES.get(note.event), done.setdefault(note.pid, [])
        if role and role not in told:
            told.append(role)
    return tree.render(done) if tree else "ended"


def read_version(python: Path, package: str) -> str:
    """The package's version in this environment without a mark of its build, "" for no package."""
    if not package:
        return ""
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    asked = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    return asked.stdout.strip().partition("+")[0]
