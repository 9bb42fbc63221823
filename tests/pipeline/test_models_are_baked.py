"""An image is built with the files that the worker would fetch, and no others; what cannot be baked fails the build."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi

from builder import fetch_model
from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.local_hub import REPOSITORY, TOKEN, serve
from tests.helpers.tiny_addons import Kits
from worker.models.locate import find_base, find_model, find_vae

ROOT = Path(__file__).parents[2]
Bake = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def published(kits: Kits, tmp_path: Path) -> Path:
    """What the hub has."""
    return shutil.copytree(kits["flux"].model, tmp_path / "published")


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    """The folder in the image."""
    return tmp_path / "baked"


@pytest.fixture
def bake(published: Path, baked: Path, tmp_path: Path) -> Bake:
    """Runs the builder with these settings, against a hub that asks for a token."""

    def run(token: str = TOKEN, **settings: str) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODEL_"))}
        with serve(published) as hub:
            own = {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url}
            return subprocess.run(
                [sys.executable, "builder/fetch_model.py", str(baked)],
                env={**kept, **own, **settings},
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=120,
            )

    return run


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def give_variant(folder: Path, name: str, move: bool = False) -> None:
    """Have this variant of each component's weights beside the plain ones, or in their place."""
    for file in list(folder.rglob("*.safetensors")):
        shutil.copy(file, file.with_name(f"{file.stem}.{name}.safetensors"))
        if move:
            file.unlink()


def test_a_model_of_which_there_is_only_a_variant(kits: Kits, published: Path, baked: Path, bake: Bake) -> None:
    give_variant(published, "fp16", move=True)
    done = bake(MODEL_NAME=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = Path(find_model(REPOSITORY, caches={"the image": baked}).location)
    expected = picture(load_engine(MODEL_NAME=str(kits["flux"].model)))
    assert_same(picture(load_engine(MODEL_NAME=str(found))), expected)


def test_of_several_variants_the_wanted_one_alone(published: Path, baked: Path, bake: Bake) -> None:
    give_variant(published, "fp16")
    (published / "README.md").write_text("about it")
    (published / "transformer" / "pytorch_model.bin").write_text("pickled")
    done = bake(MODEL_NAME=REPOSITORY, MODEL_VARIANT="fp16")
    assert done.returncode == 0, done.stderr
    weights = {name for name in files(published) if name.endswith(".safetensors")}
    expected = files(published) - {name for name in weights if ".fp16." not in name}
    found = Path(find_model(REPOSITORY, caches={"the image": baked}).location)
    assert files(found) == expected - {"README.md", "transformer/pytorch_model.bin"}


def test_a_base_without_its_own_denoiser(published: Path, baked: Path, bake: Bake) -> None:
    (weights,) = (published / "transformer").glob("*.safetensors")
    shutil.copy(weights, published / "tuned.safetensors")
    weights.rename(weights.with_suffix(".bin"))  # which nobody would load
    done = bake(MODEL_NAME=REPOSITORY, TRANSFORMER_NAME=f"{REPOSITORY}/tuned.safetensors")
    assert done.returncode == 0, done.stderr
    found = Path(find_base(REPOSITORY, caches={"the image": baked}).location)
    assert {name for name in files(found) if name.startswith("transformer/")} == {"transformer/config.json"}
    assert "tuned.safetensors" in files(found)


def test_a_vae_without_the_rest_of_its_model(baked: Path, bake: Bake) -> None:
    address = f"https://huggingface.co/{REPOSITORY}/tree/main"  # as the worker's setting takes it
    done = bake(VAE_NAME=address)
    assert done.returncode == 0, done.stderr
    found = Path(find_vae(REPOSITORY, {"the image": baked}).location)
    assert files(found.parent) == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"MODEL_NAME": REPOSITORY, "MODEL_VARIANT": "fp16"}, "it has no weights of MODEL_VARIANT 'fp16'"),
        ({"MODEL_NAME": f"https://huggingface.co/{REPOSITORY}/tree/main/vae"}, "it names no file"),
        ({"TRANSFORMER_NAME": REPOSITORY}, "it names no file; one file can be baked"),
        ({"VAE_NAME": f"{REPOSITORY}/tokenizer"}, "tokenizer/vae/ should hold config.json"),
        ({"MODEL_NAME": "nobody/nothing"}, "Repository Not Found"),
        ({"MODEL_NAME": REPOSITORY, "token": "hf_wrong"}, "gated"),
    ],
)
def test_what_cannot_be_baked_fails_the_build_in_one_line(settings: dict[str, str], reason: str, bake: Bake) -> None:
    done = bake(**settings)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[-1:]
    assert " cannot be baked: " in line and reason in line, done.stderr
    assert TOKEN not in done.stderr and "hf_wrong" not in done.stderr


def test_a_hub_that_cannot_be_reached_fails_it_in_one_line_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise httpx2.ConnectError("[Errno 111] Connection\nrefused")  # after several tries

    monkeypatch.setattr(HfApi, "list_repo_files", fail)
    monkeypatch.setenv("MODEL_NAME", REPOSITORY)
    told = fetch_model.main(tmp_path / "baked")
    assert told == f"MODEL_NAME: {REPOSITORY} cannot be baked: [Errno 111] Connection refused"


def test_a_part_that_is_not_there_fails_it(published: Path, bake: Bake) -> None:
    shutil.rmtree(published / "transformer")
    assert "there is no folder transformer in it" in bake(MODEL_NAME=REPOSITORY).stderr


def test_a_secret_that_is_more_than_a_token_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch_model, "SECRET", tmp_path / "secret")
    fetch_model.SECRET.write_text("HF_TOKEN=hf_canary\nOTHER=1")
    monkeypatch.setenv("MODEL_NAME", REPOSITORY)
    told = fetch_model.main(tmp_path / "baked")
    assert told is not None and "should hold a token and nothing else" in told
    assert "canary" not in told + "".join(capsys.readouterr())


def test_weights_that_can_run_code_are_not_fetched(published: Path, baked: Path, bake: Bake) -> None:
    (weights,) = (published / "vae").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    done = bake(MODEL_NAME=REPOSITORY)
    assert done.returncode == 1 and "vae has no .safetensors weights" in done.stderr
    assert not list(baked.rglob("*.bin"))
