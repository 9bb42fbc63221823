"""LORA_REPOS: a LoRA is fetched at the first job that names it, and checked like any file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers import tiny_addons
from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.local_hub import REPOSITORY, TOKEN, serve
from tests.helpers.quick_python import PRELUDE
from tests.helpers.tiny_addons import FAMILIES, Kits

HERE = Path(__file__).parent
# huggingface_hub reads the environment when it is imported, hence a process. Between its steps it changes the
# repository, which it does not know that it has; HF_HOME is its own.
SCRIPT = """
import json, shutil, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.helpers.drawing import load_engine, picture
from worker.errors import WorkerError

model, repository, published, token = sys.argv[1:]
published = Path(published)

def drawn(place, job, file):
    shutil.rmtree("hf/hub", ignore_errors=True)
    try:
        engine = load_engine(MODEL_NAME=model, LORA_REPOS=place, HF_TOKEN=token)
        picture(engine, lora=job).save(file)
    except WorkerError as error:
        return str(error)
    return list(engine.capabilities.loras)

answers = {"alone": drawn(repository, repository, "alone.png")}
shutil.copy(published / "style.safetensors", published / "other.safetensors")
answers["several"] = drawn(repository, repository, "never.png")
place = f"{repository}/style.safetensors"
answers["named"] = drawn(place, place, "named.png")
answers["missing"] = drawn(f"{repository}/none.safetensors", f"{repository}/none", "never.png")
answers["pickle"] = drawn(f"{repository}/style.bin", f"{repository}/style.bin", "never.png")
(published / "style.safetensors").rename(published / "pytorch_lora_weights.safetensors")
answers["usual"] = drawn(repository, repository, "usual.png")
(published / "pytorch_lora_weights.safetensors").write_text("<html>")
answers["broken"] = drawn(repository, repository, "never.png")
for name in ("pytorch_lora_weights", "other"):
    (published / f"{name}.safetensors").unlink()
(published / "peft").rename(published / "adapter_model.safetensors")
answers["peft"] = drawn(repository, repository, "peft.png")
place = f"{repository}/adapter_model.safetensors"
answers["peft, named"] = drawn(place, place, "peft-named.png")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def visit(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str | None]]:
    """The process's folder, what came of each step, and the Authorization headers that the hub has seen."""
    folder, published = tmp_path_factory.mktemp("visit"), tmp_path_factory.mktemp("published")
    tiny_addons.lora(FAMILIES["sd1"](), published / "style.safetensors", seed=1)
    tiny_addons.trap(published / "style.bin")
    tiny_addons.lora(FAMILIES["sd1"](), published / "peft", seed=2)
    (published / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 5}))
    tiny_addons.trap(published / "pytorch_lora_weights.bin")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODEL_", "LORA_"))}
    path = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    with serve(published) as hub:
        command = [sys.executable, "-c", PRELUDE + SCRIPT, str(kits["sd1"].model), REPOSITORY, str(published), TOKEN]
        environment = {**kept, "PYTHONPATH": path, "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": hub.url}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not list(published.glob("*.was-read"))
    assert not list(folder.rglob("*.bin*")), "a pickle is not even fetched"
    return folder, json.loads(done.stdout.splitlines()[-1]), hub.seen


@pytest.mark.parametrize("step", ["alone", "named", "usual"])
def test_it_draws_as_the_same_file_in_a_folder(step: str, visit: Any, kits: Kits) -> None:
    folder, answers, _ = visit
    name = f"{REPOSITORY}/style" if step == "named" else REPOSITORY
    local = picture(load_engine(**kits["sd1"].settings("loras")), lora="plain")  # of the same seed

    assert answers[step] == [name]
    assert_same(Image.open(folder / f"{step}.png"), local)


def test_pefts_config_comes_with_its_weights(visit: Any, kits: Kits, tmp_path: Path) -> None:
    folder, answers, _ = visit
    tiny_addons.lora(FAMILIES["sd1"](), tmp_path / "style.safetensors", seed=2)
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))
    scaled = picture(engine, lora="style", lora_scale=5 / 2)

    assert answers["peft"] == [REPOSITORY]
    assert_same(Image.open(folder / "peft.png"), scaled)
    assert_same(Image.open(folder / "peft-named.png"), scaled)


def test_of_several_files_one_has_to_be_named(visit: Any) -> None:
    assert visit[1]["several"] == f"{REPOSITORY} holds 2 .safetensors files; name one in LORA_REPOS"


def test_what_is_not_there_or_not_whole_is_named(visit: Any) -> None:
    _, answers, _ = visit
    assert f"{REPOSITORY} has no none.safetensors" in answers["missing"]
    assert "style.bin" in answers["pickle"] and "org/name/file.safetensors" in answers["pickle"]
    assert "pytorch_lora_weights.safetensors is a web page" in answers["broken"]


def test_the_hub_gets_the_token_of_the_settings_and_no_other(visit: Any) -> None:
    """The repository is gated: without it nothing here would have been fetched."""
    assert set(visit[2]) - {None} == {f"Bearer {TOKEN}"}
