"""What a worker fetches from Civitai draws as the same file from a folder, whatever setting names it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.civitai_site import TOKEN, Published, Site, serving
from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.tiny_addons import Kit, Kits, noise, uri
from worker.engine.engine import Engine
from worker.errors import ModelError

PAGE = "https://civitai.com/models/4384?modelVersionId="


@pytest.fixture(scope="module")
def kit(kits: Kits) -> Kit:
    return kits["sd1"]


@pytest.fixture(scope="module")
def site(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    assert kit.words is not None
    weights = "diffusion_pytorch_model.safetensors"
    published = {
        1: Published("plain.safetensors", (kit.loras / "plain.safetensors").read_bytes(), locked=True),
        2: Published("wobble.safetensors", (kit.words / "wobble.safetensors").read_bytes()),
        3: Published("edges.safetensors", (kit.controlnets["edges"] / weights).read_bytes()),
        4: Published("own.vae.safetensors", (kit.model / "vae" / weights).read_bytes()),
        5: Published("adapter.safetensors", kit.ip_adapter.read_bytes()),
    }
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("civitai")
        with serving(Site({number: [file] for number, file in published.items()}), folder, patch) as running:
            yield running


@pytest.fixture(scope="module")
def fetched(kit: Kit, site: Site) -> Engine:
    addresses = {
        "LORA_REPOS": f"{PAGE}1",
        "EMBEDDING_REPOS": f"{PAGE}2",
        "CONTROLNETS": f"edges={PAGE}3",
        "VAE_NAME": f"{PAGE}4",
        "IP_ADAPTER": f"{PAGE}5",
        "IP_ADAPTER_ENCODER": str(kit.image_encoder),
    }
    return load_engine(MODEL_NAME=str(kit.model), CIVITAI_TOKEN=TOKEN, **addresses)


@pytest.fixture(scope="module")
def local(kit: Kit) -> Engine:
    return load_engine(**kit.settings("loras", "words", "controlnets", "ip_adapter"))


JOBS: dict[str, dict[str, Any]] = {
    "nothing beside it": {},
    "LoRA": {"loras": [{"name": "plain", "scale": 0.8}]},
    "embedding": {"prompt": "a wobble square"},
    "ControlNet": {"controlnet": {"name": "edges", "image": uri(noise(1))}},
    "IP-Adapter": {"ip_adapter": {"image": uri(noise(2))}},
}


@pytest.mark.parametrize("job", JOBS)
def test_it_draws_the_same(job: str, fetched: Engine, local: Engine) -> None:
    drawn = picture(fetched, **JOBS[job])
    assert_same(drawn, picture(local, **JOBS[job]))
    assert not JOBS[job] or drawn.tobytes() != picture(local).tobytes()


def test_everything_was_fetched_once_and_the_storage_never_saw_the_token(fetched: Engine, site: Site) -> None:
    assert len(site.paths("storage")) == 5
    assert all(authorization is None for who, _, authorization, _ in site.asked if who == "storage")


@pytest.mark.parametrize(
    ("setting", "address", "words"),
    [
        ("MODEL_NAME", f"{PAGE}1", "is a LoRA, which changes a model and is none"),
        ("MODEL_NAME", f"{PAGE}9", "MODEL_NAME: civitai.com model version 9 is not on civitai.com"),
        ("VAE_NAME", f"{PAGE}9", "VAE_NAME: civitai.com model version 9 is not on civitai.com"),
        ("CONTROLNETS", f"edges={PAGE}9", "CONTROLNETS: edges: civitai.com model version 9 is not on"),
        ("IP_ADAPTER", f"{PAGE}9", "IP_ADAPTER: civitai.com model version 9 is not on civitai.com"),
    ],
)
def test_what_cannot_be_had_names_its_setting(
    setting: str, address: str, words: str, kit: Kit, fetched: Engine, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        load_engine(**{"MODEL_NAME": str(kit.model), setting: address})
    assert words in str(caught.value)
