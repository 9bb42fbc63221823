"""A hub id, and the address of each page on the hub, are read as the same place; what names nothing is told apart."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ModelError, SettingsError
from worker.models.adapters import find_adapters
from worker.models.addresses import CivitaiPlace, HubPlace, read_civitai, read_hub
from worker.models.hub import find_beside
from worker.models.locate import find_component, find_model, find_vae
from worker.settings import Settings, read_settings

NOWHERE: dict[str, Path] = {}
names = st.text("aZ09", min_size=1, max_size=9) | st.sampled_from(["sd_xl.base-1.0", "x.safetensors", "tree", "blob"])
repositories = st.tuples(names, names).map("/".join)
segments = st.text("a1 ä+%#?&=:@日", min_size=1, max_size=8)
folders = st.lists(segments, max_size=2)
revisions = st.sampled_from(["main", "fp16", "refs/pr/3", "v1.0", "133a221b8aa7292a167afc5127cb63fb5005638b"])
hosts = st.sampled_from(
    [
        f"{scheme}{www}{host}"
        for scheme in ("https://", "http://", "")
        for www in ("", "www.")
        for host in ("huggingface.co",)
    ]
    + ["https://hf.co"]
)


@given(
    host=hosts, repository=repositories, revision=revisions, folder=folders, end=st.sampled_from(["", "/", "?x=y#z"])
)
def test_a_page_of_a_repository(host: str, repository: str, revision: str, folder: list[str], end: str) -> None:
    named = None if revision == "main" else revision
    assert read_hub(f"{host}/{repository}{end}") == HubPlace("repository", repository)
    address = "/".join([host, repository, "tree", quote(revision, safe=""), *map(quote, folder)])
    kind = "folder" if folder else "repository"
    assert read_hub(address + end) == HubPlace(kind, repository, "/".join(folder), named)


@given(
    host=hosts,
    repository=repositories,
    revision=revisions,
    folder=folders,
    page=st.sampled_from(["blob", "resolve", "raw"]),
    end=st.sampled_from(["", "?download=true", "?download=1#x"]),
)
def test_a_page_of_a_file(host: str, repository: str, revision: str, folder: list[str], page: str, end: str) -> None:
    path = "/".join([*folder, "model v1.safetensors"])
    address = f"{host}/{repository}/{page}/{quote(revision, safe='')}/{quote(path)}{end}"
    named = None if revision == "main" else revision
    assert read_hub(address) == HubPlace("file", repository, path, named)
    source = find_model(address, caches=NOWHERE)
    assert (source.kind, source.location, source.revision) == ("hub file", f"{repository}/{path}", named)
    assert source.name == find_model(f"{repository}/{path}", caches=NOWHERE).name


@given(repository=repositories, revision=revisions)
def test_every_setting_takes_the_address_as_it_takes_the_id(repository: str, revision: str) -> None:
    address = f"https://huggingface.co/{repository}/tree/{quote(revision, safe='')}"
    for find in (find_model, find_vae, find_component):
        kind = find(address, caches=NOWHERE)
        assert (kind.kind, kind.location) == ("hub", repository)


def test_a_part_of_a_model_may_be_a_folder_and_a_model_may_not() -> None:
    address = "https://huggingface.co/org/name/tree/main/canny"
    for find in (find_vae, find_component):
        for name in (address, "org/name/canny"):
            found = find(name, caches=NOWHERE)
            assert (found.kind, found.location) == ("hub folder", "org/name/canny")
    with pytest.raises(ModelError, match=r"names a folder in org/name; a model is a whole repository, or one file$"):
        find_model(address, caches=NOWHERE)


def test_a_revision_in_the_address_and_another_in_the_setting_contradict_each_other() -> None:
    address = "https://huggingface.co/org/name/tree/fp16"
    assert find_model(address, "fp16", NOWHERE).revision == "fp16"
    assert find_model("https://huggingface.co/org/name/tree/main", "v2", NOWHERE).revision == "v2"
    with pytest.raises(ModelError, match="names revision fp16, and MODEL_REVISION v2; leave one out"):
        find_model(address, "v2", NOWHERE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://huggingface.co/datasets/org/name", "is the address of a dataset, not of a model"),
        ("https://huggingface.co/spaces/org/name", "is the address of a space"),
        ("https://huggingface.co/org/name/discussions/3", "names no file of org/name; copy the address of the file's"),
        ("https://huggingface.co/org/name/blob/main", "names no file of org/name"),
        ("https://huggingface.co/org/name/commits/main", "names no file of org/name"),
        ("https://huggingface.co", "is neither a folder, a .safetensors file nor a hub id"),
        ("https://example.com/a/b.safetensors?key=secret", "it is an address of example.com; taken are folders,"),
        (
            f"https://x.s3.amazonaws.com/m.safetensors?sig={'secret' * 500}",
            "it is an address of x.s3.amazonaws.com; taken",
        ),
        ("s3://bucket/model.safetensors", "it is an address of bucket; taken are"),
        ("org/name/../../x", "leaves its repository"),
        ("https://huggingface.co/org/name/blob/main/%2e%2e/x", "leaves its repository"),
    ],
)
def test_what_names_nothing_is_told_apart(text: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(text, caches=NOWHERE)
    assert words in str(caught.value) and "secret" not in str(caught.value) and "run code" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("org/name/model.ckpt", "can run code when it is read and is refused"),
        ("https://huggingface.co/org/name/blob/main/model.bin", "can run code when it is read and is refused"),
        ("https://huggingface.co/org/name/blob/main/model.gguf", "is GGUF, which is taken of a denoiser alone"),
        ("https://huggingface.co/org/name/blob/main/README.md", "is no .safetensors file, the only kind of weights"),
        ("https://huggingface.co/org/name/resolve/main/model", "is no .safetensors file, the only kind of weights"),
    ],
)
def test_a_file_of_another_kind_is_refused_for_what_it_is(name: str, words: str) -> None:
    for find in (find_model, find_vae, find_component):
        with pytest.raises(ModelError, match=words):
            find(name, caches=NOWHERE)


@given(version=st.integers(1, 10**9), model=st.integers(1, 10**7), slug=st.sampled_from(["", "/a-name", "/näme"]))
def test_a_version_on_civitai(version: int, model: int, slug: str) -> None:
    for host in ("civitai.com", "civitai.red", "civitai.green"):
        for scheme in ("https://", "http://", "", "https://www."):
            place = CivitaiPlace(host, version)
            assert read_civitai(f"{scheme}{host}/models/{model}{slug}?modelVersionId={version}") == place
            assert read_civitai(f"{scheme}{host}/api/download/models/{version}") == place
    assert read_civitai(f"https://civitai.com/api/download/models/{version}?fp=fp16&type=Model") == CivitaiPlace(
        "civitai.com", version, (("type", "Model"), ("fp", "fp16"))
    )


@pytest.mark.parametrize(
    "host", ["civitai.com.example.org", "notcivitai.com", "civitai.org", "example.com/civitai.com"]
)
def test_what_only_looks_like_civitai_is_not(host: str) -> None:
    assert read_civitai(f"https://{host}/api/download/models/1") is None


def test_an_image_encoder_is_beside_the_weights(tmp_path: Path) -> None:
    beside = {
        "org/name/models/adapter.safetensors": "org/name/models/image_encoder",
        "https://huggingface.co/org/name/blob/main/models/adapter.safetensors": "org/name/models/image_encoder",
        "https://huggingface.co/org/name/resolve/main/adapter.safetensors?download=true": "org/name/image_encoder",
        str(tmp_path / "adapter.safetensors"): str(tmp_path / "image_encoder"),
    }
    assert {place: find_beside(place, "image_encoder") for place in beside} == beside
    elsewhere = find_beside("https://huggingface.co/org/name/blob/refs%2Fpr%2F1/m/adapter.safetensors", "image_encoder")
    assert read_hub(elsewhere) == HubPlace("folder", "org/name", "m/image_encoder", "refs/pr/1")


# The settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests counts."""
    for name in {*map(str.upper, Settings.model_fields)} & {*os.environ}:
        monkeypatch.delenv(name)


def test_lists_take_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://huggingface.co/org/name/resolve/main/style.safetensors?download=true"
    short = "civitai.com/models/4384?modelVersionId=1, huggingface.co/org/name/tree/main"
    monkeypatch.setenv("LORA_REPOS", f"org/other, {address}, {short}")
    monkeypatch.setenv("CONTROLNETS", f"canny={address}, depth=https://civitai.com/api/download/models/1?type=Model")
    monkeypatch.setenv("EMBEDDING_REPOS", address)
    assert read_settings().lora_repos == f"org/other, {address}, {short}"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("https://huggingface.co/org/name/tree/main/loras", "names a folder; name the file in it"),
        ("https://huggingface.co/org/name/blob/main/style.pt", "can run code when it is read and is refused"),
        ("https://example.com/style.safetensors", "it is an address of example.com; taken are"),
        ("https://civitai.com/models/4384", "names no version of a model"),
    ],
)
def test_an_entry_that_names_no_file_stops_the_start(entry: str, words: str) -> None:
    for setting in ("lora_repos", "embedding_repos"):
        with pytest.raises(ModelError) as caught:
            find_adapters(Settings(**{setting: entry}))
        assert str(caught.value).startswith(f"{setting.upper()}: ") and (
            "folder" in words or words in str(caught.value)
        )


def test_a_lora_goes_by_what_its_address_shows() -> None:
    addresses = ("https://huggingface.co/org/name", "https://huggingface.co/org/two/resolve/v1/a/style.safetensors")
    found = find_adapters(Settings(lora_repos=", ".join(addresses))).loras
    assert list(found)[-2:] == ["org/name", "org/two/a/style"]


def test_a_controlnet_without_a_name_is_not_named_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLNETS", "https://huggingface.co/org/name/resolve/main/x.safetensors?download=true")
    with pytest.raises(SettingsError, match="should be name=folder or name=org/name"):
        read_settings()


def test_a_token_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLNETS", "https://civitai.com/api/download/models/1?token=canary&x=1")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert "canary" not in str(caught.value)
