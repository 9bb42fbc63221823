"""Pipes, devices, sockets, folders and links to nothing, wherever a file is expected: named at once, and left alone."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.helpers.fuzzing import examples
from tests.helpers.odd_paths import ODD_PATHS, put, remove
from worker.errors import ModelError, SettingsError
from worker.files import UnreadableError, copy_to_memory, find_size, open_file, read_file
from worker.models import download_log, hub
from worker.models.adapters import find_adapters
from worker.models.hub import download, make_lora_fetcher
from worker.models.locate import find_component, find_model, find_vae
from worker.runtime.local_test import check_local_job
from worker.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
SOON_S = 10.0  # who opens a pipe without a writer, or reads an endless device, does not come back at all
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
MODEL = {
    "unet": (CONFIG, WEIGHTS, f"{WEIGHTS}.index.json"),
    "text_encoder": (CONFIG, "model.safetensors"),
    "tokenizer": ("vocab.json", "merges.txt", "tokenizer_config.json", "spiece.model"),
    "scheduler": ("scheduler_config.json",),
    "feature_extractor": ("preprocessor_config.json",),
}
PARTS = ["model_index.json", *(f"{part}/{name}" for part, names in MODEL.items() for name in names), *MODEL]


@contextmanager
def soon() -> Iterator[None]:
    """What is inside the `with` does not wait for what never comes."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON_S


def write(path: Path) -> Path:
    """A whole file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".safetensors"):
        save_file({"weight": np.ones(8, np.float32)}, path)
    elif path.name.endswith(".index.json"):
        path.write_text(json.dumps({"metadata": {}, "weight_map": {"weight": WEIGHTS}}))
    else:
        path.write_text("{}")
    return path


def save_model(folder: Path) -> Path:
    """A model in diffusers layout, as far as its files are looked at before they are loaded."""
    for part, names in MODEL.items():
        for name in names:
            write(folder / part / name)
    index = {"_class_name": "X", **{part: ["diffusers", "Y"] for part in MODEL}}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_nothing_but_a_file_is_read(kind: str, tmp_path: Path) -> None:
    words = put(kind, tmp_path / "x")
    readers: list[Any] = [open_file, find_size, lambda path: read_file(path, 100)]
    readers.append(lambda path: copy_to_memory(path, 100).__enter__())
    for read in readers:
        with soon(), pytest.raises(UnreadableError) as refused:
            read(tmp_path / "x")
        assert str(refused.value) == f"{tmp_path / 'x'} {words}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is whole before and after each test."""
    return save_model(tmp_path_factory.mktemp("model"))


def test_a_model_of_files_is_taken(model: Path) -> None:
    assert find_model(str(model)).kind == "folder"


@examples(len(PARTS) * len(ODD_PATHS))
@given(part=st.sampled_from(PARTS), kind=st.sampled_from(sorted(ODD_PATHS)))
def test_every_path_of_a_model_is_named(part: str, kind: str, model: Path) -> None:
    if part in MODEL and kind == "a folder":
        return  # which it is
    kept = model.with_name("kept")
    (model / part).rename(kept)
    try:
        words = put(kind, model / part).replace("not a file", "not a folder" if part in MODEL else "not a file")
        with soon(), pytest.raises(ModelError) as refused:
            find_model(str(model))
        assert str(model / part) in str(refused.value) and words in str(refused.value)
    finally:
        remove(model / part)
        (model / f"{part}.elsewhere").unlink(missing_ok=True)
        kept.rename(model / part)


@pytest.mark.parametrize("kind", ODD_PATHS)
@pytest.mark.parametrize("find", [find_model, find_vae, find_component])
def test_a_single_file_is_named(kind: str, find: Any, tmp_path: Path) -> None:
    words = put(kind, tmp_path / "x.safetensors")
    if kind == "a folder":
        words = "config.json" if find is not find_model else "model_index.json"
    with soon(), pytest.raises(ModelError) as refused:
        find(str(tmp_path / "x.safetensors"))
    assert str(tmp_path / "x.safetensors") in str(refused.value) and words in str(refused.value)


@pytest.mark.parametrize("setting", ["lora_dir", "embeddings_dir"])
def test_what_is_no_file_in_a_folder_of_addons_is_left_out_by_name(
    setting: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, kind in enumerate(ODD_PATHS):
        put(kind, tmp_path / f"{number}.safetensors")
    write(tmp_path / "whole.safetensors")
    with soon():
        found = find_adapters(Settings(model_name="x", **{setting: tmp_path}))
    offered, left_out = found.loras or found.embeddings, found.left_out_loras or found.left_out_embeddings
    assert list(offered) == ["whole"]
    for number, (_, words) in enumerate(ODD_PATHS.values()):
        assert words in left_out[str(number)]
        assert f"leaving out {number}.safetensors: {tmp_path / f'{number}.safetensors'} {words}" in caplog.text


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_a_lora_that_was_a_file_at_start_is_named_by_its_job(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    settings = Settings(model_name="x", lora_dir=tmp_path)
    place = find_adapters(settings).loras["a"]
    words = put(kind, tmp_path / "a.safetensors")
    with soon(), pytest.raises(ModelError) as refused:
        make_lora_fetcher(settings)(place)
    assert str(refused.value) == f"{tmp_path / 'a.safetensors'} {words}"


@pytest.mark.parametrize("away", ["the file", "its folder"])
def test_a_lora_that_is_gone_is_asked_of_no_hub(away: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "loras" / "a.safetensors")
    monkeypatch.chdir(tmp_path)
    settings = Settings(model_name="x", lora_dir=Path("loras"))
    place = find_adapters(settings).loras["a"]
    remove(tmp_path / "loras" / "a.safetensors" if away == "the file" else tmp_path / "loras")
    with pytest.raises(ModelError, match=r"loras/a\.safetensors is not there$"):
        make_lora_fetcher(settings)(place)


@pytest.mark.parametrize("kind", [kind for kind in ODD_PATHS if kind != "a folder"])
@pytest.mark.parametrize("setting", ["LORA_DIR", "EMBEDDINGS_DIR"])
def test_a_setting_that_names_no_folder_says_what_it_names(
    setting: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = put(kind, tmp_path / "x").replace("not a file", "not a folder")
    monkeypatch.setenv(setting, str(tmp_path / "x"))
    with soon(), pytest.raises(SettingsError, match=f"{setting}: .*; should be an existing folder; it {words}"):
        read_settings()


@pytest.mark.parametrize("setting", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_are_read_from_files_and_folders(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for good in (tmp_path, write(tmp_path / "good"), tmp_path / "none"):
        monkeypatch.setenv(setting, str(good))
        read_settings()
    words = put("a pipe", tmp_path / "x")
    monkeypatch.setenv(setting, str(tmp_path / "x"))
    with soon(), pytest.raises(SettingsError, match=f"^{setting}: {tmp_path / 'x'} {words}$"):
        read_settings()


def test_certificates_are_looked_at_before_a_library_opens_them(tmp_path: Path) -> None:
    """The SDK's HTTP library does so when it is imported."""
    words = put("a pipe", tmp_path / "x")
    script = (
        "from worker.environment import set_aside_unusable\n"
        "from worker.settings import read_settings\n"
        "set_aside_unusable()\n"
        "import aiohttp.connector; read_settings()"
    )
    env = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "x")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert f"SettingsError: SSL_CERT_FILE: {tmp_path / 'x'} {words}" in done.stderr


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_a_local_job_is_read_from_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["handler.py"])
    words = put(kind, tmp_path / "test_input.json")
    with soon(), pytest.raises(SystemExit, match=f"^test_input.json {words}$"):
        check_local_job()


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_a_login_to_the_hub_is_read_from_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = put(kind, tmp_path / "token")
    monkeypatch.setattr(hub, "HF_TOKEN_PATH", str(tmp_path / "token"))
    source = find_model("org/name", caches={})
    with soon(), pytest.raises(ModelError, match=f"^{tmp_path / 'token'} {words}$"):
        hub.hub_options(source, Settings(model_name="org/name"))
    assert hub.hub_options(source, Settings(model_name="org/name", HF_TOKEN="hf_x"))["token"] == "hf_x"


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_what_the_hubs_cache_holds_may_be_anything(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = put(kind, tmp_path / "x.safetensors")
    monkeypatch.setattr(download_log, "hf_hub_download", lambda *_, **__: str(tmp_path / "x.safetensors"))
    options = {"revision": None, "token": None, "cache_dir": None}
    with soon(), pytest.raises(ModelError, match=f"org/name cannot be fetched from the hub: .*{words}"):
        download("org/name", "x.safetensors", options)


def test_a_cache_of_anything_is_passed_over(tmp_path: Path) -> None:
    """Of its folder, its refs and its snapshots, nothing is waited for."""
    names = ("models--org--name", "refs", "main"), ("models--org--name", "snapshots"), ("models--org--name",)
    for kind, parts in itertools.product(ODD_PATHS, names):
        cache = tmp_path / "cache"
        remove(cache)
        place = cache.joinpath(*parts)
        place.parent.mkdir(parents=True)
        put(kind, place)
        with soon():
            assert find_model("org/name", caches={"a cache": cache}).kind == "hub"
