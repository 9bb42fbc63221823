"""What an owner offers to jobs is found at start: whole files of one kind, by name; what is left out is said."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from worker.errors import SettingsError
from worker.models.adapters import AdapterCatalogue, find_adapters
from worker.settings import read_settings


def _found(monkeypatch: pytest.MonkeyPatch, **environment: str) -> AdapterCatalogue:
    """What these settings offer."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return find_adapters(read_settings())


def _weights(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"up": numpy.zeros((2, 2), "float32")}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"


def test_the_embedded_model_offers_its_own_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(_found(monkeypatch).loras) == ["neon"]


def test_nothing_is_offered_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, MODEL_NAME="org/model")
    assert (found.loras, found.controlnets, found.embeddings) == ({}, {}, {})
    assert (found.ip_adapter, found.image_encoder) == (None, None)


@pytest.mark.parametrize("setting", ["LORA_DIR", "EMBEDDINGS_DIR"])
def test_files_are_found_in_folders_of_any_depth_by_their_path(
    setting: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "people/anna", "people/old/b.v1", "стиль", "with space"):
        _weights(folder / f"{name}.safetensors")
    (folder / "empty").mkdir()
    (folder / "readme.txt").write_text("read me")
    found = _found(monkeypatch, **{setting: str(folder)})
    names = found.loras if setting == "LORA_DIR" else found.embeddings
    assert set(names) == {"a", "people/anna", "people/old/b.v1", "стиль", "with space"}
    assert names["people/anna"] == str(folder / "people/anna.safetensors")


def test_what_was_found_cannot_be_changed_by_a_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _weights(folder / "a.safetensors")
    loras: Any = _found(monkeypatch, LORA_DIR=str(folder)).loras
    with pytest.raises(TypeError):
        loras["../b"] = "/etc/passwd"


@pytest.mark.parametrize("ending", ["bin", "pt", "pth", "ckpt"])
def test_a_pickle_is_left_out_and_named(
    ending: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _weights(folder / "a.safetensors")
    (folder / "old").mkdir()
    (folder / "old" / f"b.{ending}").write_bytes(b"\x80\x02")
    with caplog.at_level(logging.INFO, "worker"):
        found = _found(monkeypatch, LORA_DIR=str(folder))
    assert list(found.loras) == ["a"]
    assert f"LORA_DIR: leaving out old/b.{ending}: only .safetensors files are read, others can run code" in caplog.text
    assert "LORA_DIR: 1 file" in caplog.messages


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!doctype html>", "web page"),
        (b"PK\3\4", "zip or .ckpt file"),
        (b"\x08\0\0\0\0\0\0\0{", "damaged or incomplete"),
        (b"\xff" * 100, "damaged or incomplete"),
    ],
)
def test_a_damaged_file_is_left_out_with_its_reason(
    content: bytes, reason: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _weights(folder / "whole.safetensors")
    (folder / "bad.safetensors").write_bytes(content)
    assert list(_found(monkeypatch, LORA_DIR=str(folder)).loras) == ["whole"]
    assert "LORA_DIR: leaving out bad.safetensors: " in caplog.text and reason in caplog.text


def test_a_file_cut_short_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = _weights(folder / "short.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert _found(monkeypatch, LORA_DIR=str(folder)).loras == {}
    assert "leaving out short.safetensors" in caplog.text


def test_what_only_looks_like_a_file_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "folder.safetensors").mkdir(parents=True)
    (folder / "broken.safetensors").symlink_to(folder / "nowhere")
    assert _found(monkeypatch, LORA_DIR=str(folder)).loras == {}
    assert "leaving out folder.safetensors" in caplog.text and "leaving out broken.safetensors" in caplog.text


def test_links_in_circles_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _weights(folder / "below" / "a.safetensors")
    (folder / "below" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "self.safetensors").symlink_to(folder / "self.safetensors")
    assert list(_found(monkeypatch, LORA_DIR=str(folder)).loras) == ["below/a"]


def test_a_link_to_a_folder_or_a_file_is_as_good_as_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = _weights(folder.parent / "elsewhere" / "a.safetensors")
    folder.mkdir()
    (folder / "b.safetensors").symlink_to(elsewhere)
    assert list(_found(monkeypatch, LORA_DIR=str(folder)).loras) == ["b"]
    (folder.parent / "link").symlink_to(folder)
    assert list(_found(monkeypatch, LORA_DIR=str(folder.parent / "link")).loras) == ["b"]


def test_a_name_that_no_job_could_write_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Listed in a refusal, it would make an answer that cannot be sent."""
    whole = _weights(folder / "a.safetensors")
    strange = os.fsencode(folder) + b"/\xff.safetensors"
    try:
        with open(strange, "wb") as file:
            file.write(whole.read_bytes())
    except OSError:
        pytest.skip("this file system keeps UTF-8 names only")
    assert list(_found(monkeypatch, LORA_DIR=str(folder)).loras) == ["a"]
    assert r"leaving out '\udcff.safetensors'" in caplog.text


@pytest.mark.parametrize("setting", ["LORA_DIR", "EMBEDDINGS_DIR"])
def test_a_missing_folder_stops_the_worker_with_the_settings_name(
    setting: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=f"^{setting}: got '.*loras'; should be an existing folder$"):
        _found(monkeypatch, **{setting: str(folder)})
    folder.write_text("a file")
    with pytest.raises(SettingsError, match=f"^{setting}: "):
        _found(monkeypatch, **{setting: str(folder)})


def test_hub_ids_are_offered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(
        monkeypatch, MODEL_NAME="org/model", LORA_REPOS=" org/style , org-2/a.b_c/sub/file v1.safetensors,, "
    )
    assert found.loras == {
        "org/style": "org/style",
        "org-2/a.b_c/sub/file v1": "org-2/a.b_c/sub/file v1.safetensors",
    }


def test_folders_and_hub_ids_are_offered_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _weights(folder / "a.safetensors")
    assert set(_found(monkeypatch, LORA_DIR=str(folder), LORA_REPOS="org/b").loras) == {"a", "org/b"}


@pytest.mark.parametrize(
    "repository",
    [
        "style",
        "/volume/loras/a",
        "./a/b",
        "../a/b",
        "~/a",
        "org/",
        "org//name",
        "org/..",
        "org/name/",
        "org/name/file.ckpt",
        "org/name/../file.safetensors",
        "org/a;org/b",
    ],
)
def test_what_is_no_hub_id_stops_the_worker(repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^LORA_REPOS: got .*; should be hub ids like org/name") as refused:
        _found(monkeypatch, LORA_REPOS=f"org/good, {repository}")
    assert repr(repository) in str(refused.value)


def test_controlnets_are_named_by_their_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, CONTROLNETS=" canny = org/name , depth=/a/folder=b,")
    assert found.controlnets == {"canny": "org/name", "depth": "/a/folder=b"}
    assert list(found.controlnets) == ["canny", "depth"]  # the first is taken where a job names none


@pytest.mark.parametrize("entry", ["canny", "canny=", "=org/name", "=", "org/name"])
def test_a_controlnet_without_name_or_place_stops_the_worker(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^CONTROLNETS: got .*; should be name=folder or name=org/name") as refused:
        _found(monkeypatch, CONTROLNETS=f"good=org/good, {entry}")
    assert repr(entry) in str(refused.value)


def test_two_controlnets_of_one_name_stop_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^CONTROLNETS: got .*; should have one place for each name; not 'a=.*'$"):
        _found(monkeypatch, CONTROLNETS="a=org/one, a=org/two")


def test_an_ip_adapter_is_taken_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, IP_ADAPTER="h94/IP-Adapter/models/x.safetensors", IP_ADAPTER_ENCODER="h94/IP-Adapter/e")
    assert (found.ip_adapter, found.image_encoder) == ("h94/IP-Adapter/models/x.safetensors", "h94/IP-Adapter/e")
