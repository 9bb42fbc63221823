"""Whatever a start or a job fetches from the hub is told in the log while it comes, and no bar is drawn."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_models
from tests.helpers.local_hub import REPOSITORY, TOKEN, serve
from tests.helpers.quick_python import PRELUDE
from tests.helpers.tiny_addons import Kits

HERE = Path(__file__).parent
INTERVAL_S = 0.15
BYTES_PER_S = 400_000  # of each file
Step = tuple[str, bool, dict[str, str]]  # its name, whether the cache is emptied before, the settings
# huggingface_hub reads the environment when it is imported, hence a process. HF_HOME is its own.
SCRIPT = """
import json, logging, shutil, sys, time
import torch
torch.set_num_threads(1)
from tests.helpers.drawing import load_engine, picture
from worker.errors import WorkerError
from worker.models import download_log

interval, patient, steps = json.loads(sys.argv[1])
told = []
handler = logging.Handler()
handler.emit = lambda record: told.append((record.created, record.getMessage()))
logging.getLogger("worker").addHandler(handler)
logging.getLogger("worker").setLevel(logging.INFO)

def tell(step, empty, environment):
    told.clear()
    download_log.INTERVAL_S = patient if step == "patient" else interval
    if empty:
        shutil.rmtree("hf/hub", ignore_errors=True)
    try:
        engine = load_engine(**environment)
        if loras := engine.capabilities.loras:
            picture(engine, lora=loras[0])
    except WorkerError as error:
        return [(0, f"failed: {error}")]
    return [line for line in told if "download" in line[1]]

print(json.dumps({step[0]: tell(*step) for step in steps}))
"""


@pytest.fixture(scope="module")
def published(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that is a model, and holds everything else as well."""
    kit, folder = kits["sd1"], tmp_path_factory.mktemp("published") / "all"
    shutil.copytree(kit.model, folder)
    shutil.copytree(kit.controlnets["edges"], folder, dirs_exist_ok=True)
    shutil.copytree(kit.image_encoder, folder / "encoder")
    shutil.copy(kit.ip_adapter, folder / "adapter.safetensors")
    shutil.copy(kit.loras / "plain.safetensors", folder / "style.safetensors")
    return folder


@pytest.fixture(scope="module")
def visit(
    published: Path, kits: Kits, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[tuple[float, str]]], str]:
    """What the log tells of downloads in each step, and all that was written beside it."""
    local, hub = {"MODEL_NAME": str(kits["sd1"].model), "HF_TOKEN": TOKEN}, {"HF_TOKEN": TOKEN}
    adapter = {"IP_ADAPTER": f"{REPOSITORY}/adapter.safetensors", "IP_ADAPTER_ENCODER": f"{REPOSITORY}/encoder"}
    steps: list[Step] = [
        ("model", True, {"MODEL_NAME": REPOSITORY, **hub}),
        ("cached", False, {"MODEL_NAME": REPOSITORY, **hub}),
        ("patient", True, {"MODEL_NAME": REPOSITORY, **hub}),
        ("controlnet", True, {**local, "CONTROLNETS": f"edges={REPOSITORY}"}),
        ("ip_adapter", True, {**local, **adapter}),
        ("lora", True, {**local, "LORA_REPOS": f"{REPOSITORY}/style.safetensors"}),
        ("vae", True, {**local, "VAE_NAME": f"{REPOSITORY}/vae/diffusion_pytorch_model.safetensors"}),
    ]
    told, written = _in_a_new_process(tmp_path_factory.mktemp("visit"), published, steps)
    refiner = tiny_models.save(tiny_models.sdxl_refiner(), tmp_path_factory.mktemp("published") / "refiner")
    beside: Step = ("refiner", True, {**hub, "MODEL_NAME": str(folders["sdxl"]), "REFINER_NAME": REPOSITORY})
    more, also = _in_a_new_process(tmp_path_factory.mktemp("visit"), refiner, [beside])
    return told | more, written + also


def _in_a_new_process(folder: Path, published: Path, steps: list[Step]) -> tuple[dict[str, Any], str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODEL_"))}
    path = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    with serve(published, BYTES_PER_S) as hub:
        environment = {**kept, "PYTHONPATH": path, "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": hub.url}
        command = [sys.executable, "-c", PRELUDE + SCRIPT, json.dumps([INTERVAL_S, 60, steps])]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def _of(visit: Any, step: str, what: str) -> list[str]:
    return [line for _, line in visit[0][step] if re.match(rf"download(ing|ed) {re.escape(what)}: ", line)]


def _bytes(size: str, unit: str) -> float:
    return float(size) * {"bytes": 1, "kB": 1e3, "MB": 1e6}[unit]


def test_a_model_is_told_while_it_comes_and_in_the_end(visit: Any) -> None:
    *under_way, end = _of(visit, "model", REPOSITORY)
    size = r"([\d.]+) (bytes|kB|MB)"

    found = [re.fullmatch(rf".*: ([\d.]+) of {size}, [\d.]+ \w+/s, [\d.]+ s left", line) for line in under_way]
    known = [match for match in found if match]
    last = re.fullmatch(rf"downloaded {REPOSITORY}: {size} in [\d.]+ s, [\d.]+ \w+/s", end)
    assert len(known) >= 2 and last, under_way
    sizes = [_bytes(match[1], match[3]) for match in known]
    rounded_by = [_bytes("0.05", match[3]) for match in known]  # 1.2 of 1.2 kB, then 0.0 of 1.0 MB
    for before, after, by in zip(sizes, sizes[1:], rounded_by[1:], strict=False):
        assert after >= before - by
    assert sizes[0] < sizes[-1]
    assert _bytes(last[1], last[2]) == pytest.approx(_bytes(known[-1][2], known[-1][3]), rel=0.06)


def test_no_more_often_than_it_should_be(visit: Any) -> None:
    at = [when for when, line in visit[0]["model"] if line.startswith(f"downloading {REPOSITORY}: ")]
    assert all(later - earlier > 0.8 * INTERVAL_S for earlier, later in pairwise(at))


def test_what_is_in_the_cache_is_not_told(visit: Any) -> None:
    assert visit[0]["cached"] == []


def test_what_comes_soon_is_told_in_the_end_only(visit: Any) -> None:
    (line,) = _of(visit, "patient", REPOSITORY)
    assert line.startswith("downloaded ")


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("controlnet", f"{REPOSITORY}/diffusion_pytorch_model.safetensors"),
        ("ip_adapter", f"{REPOSITORY}/adapter.safetensors"),
        ("ip_adapter", f"{REPOSITORY}/encoder/model.safetensors"),
        ("lora", f"{REPOSITORY}/style.safetensors"),
        ("vae", f"{REPOSITORY}/vae/diffusion_pytorch_model.safetensors"),
        ("refiner", REPOSITORY),
    ],
)
def test_so_is_everything_beside_it(step: str, what: str, visit: Any) -> None:
    told = _of(visit, step, what)
    assert told and told[-1].startswith("downloaded "), visit[0][step]
    assert sum(line.startswith("downloaded ") for line in told) == 1


def test_no_bar_is_drawn(visit: Any) -> None:
    assert "%|" not in visit[1] and "it/s" not in visit[1] and "█" not in visit[1]
