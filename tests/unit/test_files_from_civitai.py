"""An address of Civitai becomes a file: whole, checked, fetched once, and the token is shown to Civitai alone."""

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from safetensors.numpy import save

from tests.helpers.civitai_site import SIGNATURE, TOKEN, Published, Site, serving
from worker import http
from worker.errors import ModelError
from worker.models import civitai, file_download
from worker.models.adapters import find_adapters
from worker.models.civitai import fetch_place
from worker.settings import Settings

BODY = save({"weight": np.arange(60_000, dtype=np.float32)})
ADDRESS = "https://civitai.com/api/download/models/1"
WITHOUT, WITH = Settings(), Settings(civitai_token=SecretStr(TOKEN))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Versions 1 and 2 with one file each, and 3, which is for people with an account."""
    versions = {
        1: [Published("dreamModel_v8.safetensors", BODY)],
        2: [Published("add_detail.safetensors", BODY[:-4] + b"\1\2\3\4")],
        3: [Published("early.safetensors", BODY, locked=True)],
    }
    with serving(Site(versions), tmp_path / "civitai", monkeypatch) as running:
        yield running


def fetched(address: str = ADDRESS, settings: Settings = WITHOUT) -> Path:
    return Path(fetch_place(address, settings))


def told(address: str = ADDRESS, settings: Settings = WITHOUT) -> str:
    """Why it is refused, in one line that holds no secret."""
    with pytest.raises(ModelError) as caught:
        fetch_place(address, settings)
    text = str(caught.value)
    assert "\n" not in text and TOKEN not in text and SIGNATURE not in text
    return text


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# What comes


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS,
        "https://civitai.com/api/download/models/1?type=Model&format=SafeTensor&size=pruned&fp=fp16",
        "https://civitai.com/models/4384/dreamshaper?modelVersionId=1",
        "https://civitai.com/models/4384?modelVersionId=1",
        "https://www.civitai.com/model-versions/1",
        "http://civitai.com/models/4384?modelVersionId=1#gallery",
        "https://civitai.red/models/4384?modelVersionId=1",
        "civitai.com/models/4384?modelVersionId=1",
        "urn:air:sd1:checkpoint:civitai:4384@1",
    ],
)
def test_every_way_to_write_it_brings_the_file_by_its_name(address: str, site: Site) -> None:
    file = fetched(address)
    assert file.name == "dreamModel_v8.safetensors" and file.read_bytes() == BODY
    assert leftovers(file.parents[1]) == [file.name]


def test_other_names_are_left_alone() -> None:
    for name in ("org/name", "/a/folder", "https://huggingface.co/org/name", "https://example.com/x.safetensors"):
        assert fetch_place(name, WITHOUT) == name


def test_what_is_there_is_not_asked_for_again(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    first = fetched()
    site.asked.clear()
    with caplog.at_level(logging.INFO, "worker"):
        assert fetched("https://civitai.red/models/5?modelVersionId=1") == first
    assert site.asked == [] and str(first) in caplog.text


def test_of_several_files_the_one_that_is_meant_is_taken(site: Site) -> None:
    full = Published("model_full.safetensors", BODY + b"", {"metadata": {"format": "SafeTensor", "size": "full"}})
    pickle = Published("model.ckpt", b"\x80\x02", {"metadata": {"format": "PickleTensor"}})
    site.versions[4] = [pickle, full, Published("model_pruned.safetensors", BODY)]
    base = "https://civitai.com/api/download/models/4"
    assert fetched(base).name == "model_full.safetensors", "the main one is a pickle"
    assert fetched(f"{base}?size=pruned").name == "model_pruned.safetensors"
    assert fetched(f"{base}?fileId=3").name == "model_pruned.safetensors"
    assert fetched(f"{base}?type=Model&format=SafeTensor&size=FULL").name == "model_full.safetensors"
    assert "model.ckpt, model_full.safetensors, model_pruned.safetensors" in told(f"{base}?fp=fp8")
    assert "model.ckpt only" in told(f"{base}?format=PickleTensor")


def test_a_site_that_knows_no_numbers_of_files_is_asked_without(site: Site) -> None:
    site.knows_file_ids = False
    assert fetched().read_bytes() == BODY


# Names come from strangers, and become parts of paths.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(min_size=1, max_size=300)
    | st.sampled_from(["../../x", "/etc/x", "..", ".", "a/../../b", "C:\\x", "\0"])
)
def test_a_files_name_leads_nowhere_else(name: str, site: Site, tmp_path: Path) -> None:
    stem = name.encode("utf-8", "ignore").decode()
    site.versions[5] = [Published(f"{stem}.safetensors", BODY)]
    root = tmp_path / "civitai"
    shutil.rmtree(root, ignore_errors=True)
    file = fetched("https://civitai.com/api/download/models/5")
    assert file.parent == root / "5" and file.suffix == ".safetensors" and not file.name.startswith(".")
    assert leftovers(tmp_path) == [file.name]


# Whom it tells what


def test_the_token_goes_to_civitai_and_not_to_its_storage(site: Site) -> None:
    site.redirects = 3
    assert fetched("https://civitai.com/api/download/models/3", WITH).read_bytes() == BODY
    shown = {(who, authorization) for who, _, authorization, _ in site.asked}
    assert shown == {("site", f"Bearer {TOKEN}"), ("storage", None)}


@pytest.mark.parametrize("login", ["status", "redirect", "page"])
def test_what_needs_an_account_says_so(login: str, site: Site, tmp_path: Path) -> None:
    site.login = login
    assert "set CIVITAI_TOKEN to an API key of yours" in told("https://civitai.com/api/download/models/3")
    wrong = Settings(civitai_token=SecretStr("anotherKey"))
    assert "the account of CIVITAI_TOKEN may not" in told("https://civitai.com/api/download/models/3", wrong)
    assert all(name.endswith(".partial") for name in leftovers(tmp_path))
    assert all(path.stat().st_size == 0 for path in tmp_path.rglob("*.partial"))


def test_a_token_in_an_address_is_refused_and_not_repeated(site: Site) -> None:
    text = told(f"{ADDRESS}?token={TOKEN}")
    assert "set CIVITAI_TOKEN" in text and site.asked == []


def test_nothing_secret_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.break_after, site.storage_status = [5_000], [500, 403]
    with caplog.at_level(logging.DEBUG):
        fetched("https://civitai.com/api/download/models/3", WITH)
    assert "broke off" in caplog.text and TOKEN not in caplog.text and SIGNATURE not in caplog.text


def test_a_redirect_to_a_machine_of_ones_own_is_not_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(civitai, "SITES", {"civitai.com": site.origin})
    monkeypatch.setattr(civitai, "PAUSE_S", 0.0)
    assert "civitai.com cannot be asked: " in told()
    assert site.asked == [], "a private address is not even dialled"


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/x", "https://user:pw@127.0.0.1/x", "http://[", "file:///etc/passwd"]
)
def test_a_redirect_to_no_web_address_is_refused(location: str, site: Site) -> None:
    site.storage = location
    assert "redirected to what is no" in told()


def test_redirects_without_end_are_left(site: Site) -> None:
    site.redirects = 100
    assert f"redirected more than {civitai.MAX_REDIRECTS} times" in told()


# What breaks off


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.integers(1, len(BODY) // 3), max_size=4), ranges=st.booleans(), lengths=st.booleans())
def test_it_goes_on_wherever_it_breaks_off(
    breaks: list[int], ranges: bool, lengths: bool, site: Site, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "civitai", ignore_errors=True)
    site.break_after, site.ranges, site.lengths = list(breaks), ranges, True if breaks else lengths
    site.asked.clear()
    assert fetched().read_bytes() == BODY
    asked = [int(value[6:-1]) if value else 0 for who, _, _, value in site.asked if who == "storage"]
    expected = [sum(breaks[:number]) for number in range(len(breaks) + 1)] if ranges else [0, *breaks]
    assert asked == expected


def test_another_start_goes_on_where_the_last_one_ended(site: Site, tmp_path: Path) -> None:
    site.break_after = [100_000] + [0] * file_download.MAX_FAILURES
    assert "cannot be fetched" in told()
    (partial,) = tmp_path.rglob("*.partial")
    assert partial.read_bytes() == BODY[:100_000]
    site.asked.clear()
    assert fetched().read_bytes() == BODY
    assert [value for who, *_, value in site.asked if who == "storage"] == ["bytes=100000-"]


def test_one_that_was_fetched_whole_and_not_renamed_is_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / "civitai" / "1").mkdir(parents=True)
    (tmp_path / "civitai" / "1" / ".dreamModel_v8.safetensors.partial").write_bytes(BODY)
    assert fetched().read_bytes() == BODY


@pytest.mark.parametrize("rubbish", [b"x" * 1_000, BODY[:5_000] + b"x", BODY + b"more", b"x" * (len(BODY) + 1)])
def test_one_that_was_begun_with_something_else_is_fetched_anew(rubbish: bytes, site: Site, tmp_path: Path) -> None:
    (tmp_path / "civitai" / "1").mkdir(parents=True)
    (tmp_path / "civitai" / "1" / ".dreamModel_v8.safetensors.partial").write_bytes(rubbish)
    assert fetched().read_bytes() == BODY
    assert leftovers(tmp_path) == ["dreamModel_v8.safetensors"]


def test_a_storage_in_trouble_is_asked_again_and_not_for_ever(site: Site) -> None:
    site.storage_status = [500, 503, 403]
    assert fetched().read_bytes() == BODY
    site.storage_status = [500] * 99
    assert "answered with status 500" in told("https://civitai.com/api/download/models/2")
    site.api_status = [502] * 99
    assert "civitai.com cannot be asked: civitai.com answered with status 502" in told(
        "https://civitai.com/api/download/models/3"
    )


# What is not what it should be


def test_another_hash_is_refused_and_not_kept(site: Site, tmp_path: Path) -> None:
    site.versions[1] = [Published("a.safetensors", BODY, {"hashes": {"SHA256": "0" * 64}})]
    assert "came with sha256" in told()
    assert all(path.stat().st_size == 0 for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04" + bytes(100), "is a zip or .ckpt file"),
        (b"", "is empty"),
        (BODY[:-5], "damaged or incomplete"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(body: bytes, words: str, site: Site, tmp_path: Path) -> None:
    site.versions[1] = [Published("a.safetensors", body)]
    assert words in told()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_pickle_is_not_even_fetched(site: Site) -> None:
    site.versions[1] = [Published("easynegative.pt", b"\x80\x02", {"metadata": {"format": "PickleTensor"}})]
    assert "offered as easynegative.pt only; only .safetensors files are read, others can run code" in told()
    assert site.paths("storage") == []


def test_a_copy_that_is_damaged_is_fetched_again(site: Site) -> None:
    file = fetched()
    file.write_bytes(BODY[:-5])
    assert fetched().read_bytes() == BODY


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"files": 3}', b'{"files": [3, {"name": 5}]}', b"\xff"])
def test_an_api_that_says_something_else(answer: bytes, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    response = http.Response(200, {}, answer, complete=True)
    monkeypatch.setattr(http, "request", lambda *_, **__: response)
    assert "civitai.com model version 1" in told()


def test_a_version_that_is_not_there(site: Site) -> None:
    assert told("https://civitai.com/api/download/models/77").endswith("is not on civitai.com (status 404)")


@pytest.mark.parametrize(
    "address",
    ["https://civitai.com/models/4384", "https://civitai.com/models/4384/dream", "https://civitai.com/", "civitai.com"],
)
def test_an_address_without_a_version_says_what_to_copy(address: str) -> None:
    assert "?modelVersionId=" in told(address)


# The disk


def test_what_does_not_fit_is_not_begun(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "needs 0.00 GB, and " in told()
    site.lengths = False
    assert "needs 0.00 GB, and " in told(), "by what the API says"
    site.versions[1][0].about["sizeKB"] = None
    assert "larger than the disk has room for" in told()


def test_a_disk_that_is_full_is_told_and_emptied(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(file_download.FileIO):
        def write(self, piece: Any) -> int:
            if self.tell() > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(piece[:60_000])

    monkeypatch.setattr(file_download, "FileIO", Full)
    assert "No space left on device" in told()
    assert all(path.stat().st_size == 0 for path in tmp_path.rglob("*") if path.is_file())


def test_a_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "civitai").write_text("in the way")
    assert "cannot be written to" in told()


# Several workers


def test_workers_at_once_fetch_it_once(site: Site, tmp_path: Path) -> None:
    started = threading.Barrier(4)
    site.before = lambda: time.sleep(0.2)

    def fetch(_: int) -> bytes:
        started.wait(10)
        return fetched().read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetch, range(4))) == [BODY] * 4
    assert len(site.paths("storage")) == 1
    assert leftovers(tmp_path) == ["dreamModel_v8.safetensors"]


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "a+b")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(b"begun by one that dies")
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_a_worker_that_dies_holds_up_nobody(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "civitai" / "1"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(folder / ".dreamModel_v8.safetensors.partial")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder, ThreadPoolExecutor(1) as pool:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        waiting = pool.submit(fetched)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        assert site.paths("storage") == [], "the other one is fetching it"
        holder.kill()
        assert waiting.result(20).read_bytes() == BODY


def test_without_locks_each_fetches_its_own(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(file_download.fcntl, "flock", refuse)
    with ThreadPoolExecutor(3) as pool:
        assert [path.read_bytes() for path in pool.map(lambda _: fetched(), range(3))] == [BODY] * 3
    assert [name for name in leftovers(tmp_path) if not name.startswith(".")] == ["dreamModel_v8.safetensors"]


@pytest.mark.parametrize("volume", [True, False])
def test_it_is_kept_on_the_volume_if_there_is_one(
    volume: bool, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And found in either place by the next start."""
    monkeypatch.setattr(civitai, "FOLDERS", (tmp_path / "volume", tmp_path / "cache"))
    monkeypatch.setattr(civitai, "download_folder", lambda: tmp_path if volume else None)
    file = fetched()
    assert file.is_relative_to(tmp_path / ("volume" if volume else "cache"))
    monkeypatch.setattr(civitai, "download_folder", lambda: None if volume else tmp_path)
    assert fetched() == file and len(site.paths("storage")) == 1


# What jobs may name


def test_loras_and_embeddings_go_by_their_files_names(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.versions[6] = [Published("add_detail.safetensors", BODY)]
    loras = ", ".join(f"https://civitai.com/api/download/models/{number}" for number in (2, 6))
    words = "https://civitai.com/models/3036?modelVersionId=1"
    found = find_adapters(Settings(lora_repos=f"org/name, {loras}", embedding_repos=words))
    assert [*found.loras][-3:] == ["org/name", "add_detail", "add_detail_6"]
    assert Path(found.loras["add_detail"]).read_bytes() == site.versions[2][0].body
    assert list(found.embeddings) == ["dreamModel_v8"]


@pytest.mark.parametrize("setting", ["LORA_REPOS", "EMBEDDING_REPOS"])
def test_one_that_cannot_be_had_stops_the_start(setting: str, site: Site) -> None:
    with pytest.raises(ModelError, match=f"^{setting}: civitai.com model version 77 is not on civitai.com"):
        find_adapters(Settings(**{setting.lower(): "https://civitai.com/api/download/models/77"}))


def test_a_download_is_told_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "worker"):
        fetched()
    assert any(
        line.startswith("downloaded civitai.com: dreamModel_v8.safetensors: 240 kB in") for line in caplog.messages
    )
    assert hashlib.sha256(fetched().read_bytes()).hexdigest() == hashlib.sha256(BODY).hexdigest()
