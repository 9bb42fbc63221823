"""Where a hub model is looked for: RunPod's cache, the image, the volume, the hub; what is not whole is passed over."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from worker.errors import ModelError
from worker.models.locate import find_model, find_vae

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("RunPod's model cache", "the image", "the network volume")


@pytest.fixture
def caches(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / str(number) / "hub" for number, name in enumerate(NAMES)}


def store(cache: Path, repository: str = "models--Org--Name", ref: str = "main") -> Path:
    """A model as huggingface_hub stores it: refs/REF names a snapshot, whose files are links to blobs."""
    folder = cache / repository
    snapshot = folder / "snapshots" / COMMIT
    (snapshot / "unet").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "blobs").mkdir()
    (folder / "refs" / ref).write_text(COMMIT)
    (snapshot / "model_index.json").write_text(json.dumps({"_class_name": "X", "unet": ["diffusers", "UNet"]}))
    (snapshot / "unet" / "config.json").write_text("{}")
    save_file({"weight": np.ones(8, np.float32)}, folder / "blobs" / "weights")
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").symlink_to(folder / "blobs" / "weights")
    return snapshot


@pytest.mark.parametrize("present", [NAMES, NAMES[1:], NAMES[2:]])
def test_the_fastest_copy_is_taken(present: tuple[str, ...], caches: dict[str, Path]) -> None:
    snapshots = {name: store(caches[name]) for name in present}

    source = find_model("Org/Name", caches=caches)

    assert (source.kind, Path(source.location)) == ("folder", snapshots[present[0]])
    assert present[0] in source.reason
    assert source.name == "Org/Name"


def test_case_does_not_count(caches: dict[str, Path]) -> None:
    snapshot = store(caches["RunPod's model cache"], "models--org--NAME")

    assert Path(find_model("ORG/name", caches=caches).location) == snapshot


def test_nothing_local_means_the_hub(caches: dict[str, Path]) -> None:
    assert find_model("Org/Name", caches=caches).kind == "hub"
    assert find_model("Org/Name/weights.safetensors", caches=caches).kind == "hub file"


@pytest.mark.parametrize("name", ["https://huggingface.co/Org/Name", "Org/Name/", "https://huggingface.co/Org/Name/"])
def test_the_address_of_a_models_page_is_its_id(name: str, caches: dict[str, Path]) -> None:
    source = find_model(name, caches=caches)

    assert (source.kind, source.location) == ("hub", "Org/Name")


@pytest.mark.parametrize("name", ["https://huggingface.co/org", "org/", "org"])
def test_half_an_id_is_named(name: str, caches: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=f"{name} is neither a folder, a .safetensors file nor a hub id"):
        find_model(name, caches=caches)


def test_a_revision_is_its_own_copy(caches: dict[str, Path]) -> None:
    snapshot = store(caches["the image"], ref="v2")

    assert find_model("Org/Name", "main", caches).kind == "hub"
    assert Path(find_model("Org/Name", "v2", caches).location) == snapshot
    assert Path(find_model("Org/Name", COMMIT, caches).location) == snapshot


def test_one_file_of_a_repository_is_found_too(caches: dict[str, Path]) -> None:
    snapshot = store(caches["the network volume"])
    save_file({"weight": np.ones(8, np.float32)}, snapshot / "all.safetensors")

    source = find_model("Org/Name/all.safetensors", caches=caches)

    assert (source.kind, Path(source.location)) == ("file", snapshot / "all.safetensors")


def test_a_vae_is_found_alone_or_in_a_whole_models_repository(caches: dict[str, Path]) -> None:
    alone = store(caches["the image"])
    (alone / "unet" / "config.json").rename(alone / "config.json")
    (alone / "unet" / "diffusion_pytorch_model.safetensors").rename(alone / "diffusion_pytorch_model.safetensors")
    whole = store(caches["the network volume"], "models--Org--Whole")
    (whole / "unet").rename(whole / "vae")

    assert Path(find_vae("Org/Name", caches).location) == alone
    assert Path(find_vae("Org/Whole", caches).location) == whole / "vae"
    assert find_vae("Org/Other", caches).kind == "hub"


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path: path.write_bytes(b""),
    "a web page": lambda path: path.write_text("<!DOCTYPE html><title>Sign in</title>"),
    "half downloaded": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_named_and_passed_over(
    damage: str, caches: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    store(caches["RunPod's model cache"])
    DAMAGE[damage](caches["RunPod's model cache"] / "models--Org--Name" / "blobs" / "weights")
    whole = store(caches["the network volume"])

    with caplog.at_level(logging.WARNING, "worker"):
        source = find_model("Org/Name", caches=caches)

    assert Path(source.location) == whole
    assert "RunPod's model cache" in caplog.text
    assert "unet" in caplog.text


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_named_and_not_loaded(damage: str, tmp_path: Path) -> None:
    snapshot = store(tmp_path)
    DAMAGE[damage](tmp_path / "models--Org--Name" / "blobs" / "weights")

    with pytest.raises(ModelError, match="unet"):
        find_model(str(snapshot))


def test_weights_that_can_run_code_are_refused(tmp_path: Path) -> None:
    snapshot = store(tmp_path)
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").rename(snapshot / "unet" / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"pytorch_model\.bin can run code"):
        find_model(str(snapshot))
