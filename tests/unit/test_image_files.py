"""The image is built from a lock of its requirements, and holds what the worker needs and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
PIN = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


def _pins(text: str) -> dict[str, str]:
    return {re.sub(r"[._-]+", "-", name).lower(): version for name, version in PIN.findall(text)}


def test_the_lock_is_of_these_requirements() -> None:
    wanted = {}
    for name in ("requirements.txt", "requirements-gpu.txt"):
        pins = _pins((ROOT / name).read_text())
        assert pins, f"{name} pins nothing"
        wanted |= pins
    locked = _pins(LOCK)
    assert {name: locked.get(name) for name in wanted} == wanted, "run `make lock`"


def test_every_locked_package_has_a_hash_and_no_address() -> None:
    entries = re.split(r"^(?=\S)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    assert len(entries) == len(_pins(LOCK))
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"https?:|file:|index-url|find-links| @ ", LOCK)


def test_torch_comes_with_cuda_13() -> None:
    assert _pins(LOCK)["cuda-toolkit"].startswith("13.")


def test_the_worker_is_process_1_and_quiet() -> None:
    (command,) = re.findall(r"^CMD (.*)", DOCKERFILE, re.MULTILINE)
    assert json.loads(command) == ["python", "handler.py"]
    assert "RUNPOD_LOG_LEVEL=INFO" in DOCKERFILE
    assert "ENTRYPOINT" not in DOCKERFILE


def test_no_secret_is_an_argument_or_a_variable() -> None:
    for line in re.findall(r"^(?:ARG|ENV) .*", DOCKERFILE, re.MULTILINE):
        assert not re.search(r"TOKEN|SECRET|KEY", line), line


def test_everything_copied_is_there_and_sent_to_the_builder() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        path for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()
    }
    mounted = set(re.findall(r"source=([^,\s]+)", DOCKERFILE))
    assert {path.split("/")[0] for path in copied | mounted} == sent
    assert copied == {"handler.py", "test_input.json", "worker", "models"}
    assert all((ROOT / path).exists() for path in mounted | copied)


@pytest.mark.parametrize("program", ["fetch_model.py", "build_launcher.py", "list_start_files.py"])
def test_what_is_mounted_for_a_program_is_all_that_it_imports(program: str, tmp_path: Path) -> None:
    (step,) = (line for line in re.findall(r"^RUN (.*)", DOCKERFILE, re.MULTILINE) if f"builder/{program}" in line)
    for source, target in re.findall(r"source=([^,\s]+),target=(\S+)", step):
        place = tmp_path / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, place)
    if "target=/app/" in step:  # what was copied there before
        (tmp_path / "app" / "worker").symlink_to(ROOT / "worker")
    (script,) = tmp_path.rglob(program)
    known = ("import runpy", f"sys.path.insert(0, {str(script.parent)!r})", f"runpy.run_path({str(script)!r})")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "; ".join(("import sys", *known))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_builds_log_tells_no_credentials(tmp_path: Path) -> None:
    secret = "https://somebody:canary0pass@huggingface.co/org/name/blob/main/a.bin?token=canary0token"
    environment = {**os.environ, "MODEL_NAME": secret, "REFINER_NAME": "", "VAE_NAME": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "builder" / "fetch_model.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "MODEL_NAME" in done.stderr
    assert "canary0" not in done.stdout + done.stderr
