"""Packages that libraries import and this worker seldom needs wait until somebody uses them, and then work as ever."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from worker.packages import list_unused_packages
from worker.settings import EMBEDDED_MODEL
from worker.spared_imports import CPUS

ROOT = Path(__file__).parents[2]

WAITING = """
import gc, sys
gc.disable()  # imports leave no garbage
from worker.packages import list_unused_packages
from worker.spared_imports import spare_imports

spare_imports(list_unused_packages())
import worker.runtime.worker
assert not {"torch._dynamo.convert_frame", "scipy.stats._distn_infrastructure", "scipy.optimize._linprog"} & set(
    sys.modules
)
"""
START = """
import sys

started = []
PROCESSES = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
sys.addaudithook(lambda event, given: started.append((event, given)) if event in PROCESSES else None)
import handler
assert handler.WORKER.failure is None
print(started, [name for name in UNUSED if name in sys.modules])
"""
UNUSED = ["torch._dynamo.convert_frame", "scipy.stats._distn_infrastructure", "cpuinfo.cpuinfo"]
COMPILER = """
import torch
from diffusers.utils.torch_utils import is_compiled_module

assert not is_compiled_module(torch.nn.Linear(2, 2)) and "torch._dynamo.convert_frame" not in sys.modules
assert torch._dynamo.eval_frame.innermost_fn(len) is len
compiled = torch.compile(torch.nn.Linear(2, 2), backend="eager")
assert is_compiled_module(compiled) and compiled(torch.ones(1, 2)).shape == (1, 2)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
assert torch.compiler.disable(len)([1]) == 1
"""
ASSIGNMENT = """
from transformers.loss import loss_for_object_detection

rows, columns = loss_for_object_detection.linear_sum_assignment([[1, 0], [0, 1]])
assert list(columns) == [1, 0]
"""
BETA = """
from diffusers import EulerDiscreteScheduler

EulerDiscreteScheduler(use_beta_sigmas=True).set_timesteps(5)
import scipy.stats
assert scipy.stats.norm.cdf(0) == 0.5
"""
THREADS = """
import concurrent.futures, scipy.stats
with concurrent.futures.ThreadPoolExecutor(8) as threads:
    assert list(threads.map(lambda _: float(scipy.stats.norm.cdf(0)), range(8))) == [0.5] * 8
try:
    scipy.stats.nothing_of_the_sort
except AttributeError as error:
    assert "scipy.stats" in str(error)
else:
    raise AssertionError
"""


def test_they_wait_and_are_there_when_they_are_used() -> None:
    script = WAITING + THREADS + ASSIGNMENT + COMPILER + BETA
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_start_with_a_model_imports_none_of_them_and_starts_no_process() -> None:
    script = START.replace("UNUSED", repr(UNUSED))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[] []"], done.stdout + done.stderr


def test_the_sdk_is_told_the_name_of_the_cpu() -> None:
    script = "from worker.spared_imports import *; spare_imports([]); import runpod.serverless.utils.rp_debugger as r; "
    done = subprocess.run(
        [sys.executable, "-c", f"{script} print(r.PROCESSOR)"], cwd=ROOT, capture_output=True, text=True
    )
    names = {line.partition(":")[2].strip() for line in CPUS.read_text().splitlines() if line.startswith("model name")}
    assert done.stdout.strip() in (names or {"Unable to get processor info."}), done.stderr


MARKED = """
import os, sys
os.environ["ACCELERATION"] = "compile"
from worker.packages import list_needed_packages
from worker.spared_imports import spare_imports

spare_imports([], list_needed_packages())
import torch

@torch.compiler.disable
def marked_before_anything_is_compiled(x):
    return x + 1

graphs = []
def count(graph, _):
    graphs.append(graph)
    return graph.forward

torch.compile(lambda x: marked_before_anything_is_compiled(x * 2) * 3, backend=count)(torch.ones(2))
assert len(graphs) == 2, "it should be left out of what is compiled, before it and after it"
"""


def test_where_passes_are_compiled_what_libraries_mark_for_the_compiler_is_marked() -> None:
    done = subprocess.run([sys.executable, "-c", MARKED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("quantised", [True, False])
def test_a_model_that_is_quantised_already_finds_what_it_needs(
    quantised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in EMBEDDED_MODEL.rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(EMBEDDED_MODEL)
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(file)
    if quantised:
        config = tmp_path / "unet" / "config.json"
        entries = json.loads(config.read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}}
        config.unlink()
        config.write_text(json.dumps(entries))
    monkeypatch.setenv("MODEL_NAME", str(tmp_path))

    assert ("bitsandbytes" in list_unused_packages()) == (not quantised)


@pytest.mark.parametrize(("name", "used"), [("org/name/a.gguf", True), ("org/name/a.safetensors", False), ("", False)])
def test_what_reads_gguf_is_there_where_such_a_file_is_named(
    name: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFORMER_NAME", name)

    assert ("gguf" in list_unused_packages()) == (not used)


def test_of_a_model_that_is_still_to_be_fetched_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "nobody/nothing")

    assert "bitsandbytes" not in list_unused_packages()
