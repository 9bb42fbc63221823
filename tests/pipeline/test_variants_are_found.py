"""A model of which only variants such as fp16 are there loads without MODEL_VARIANT, from a folder and from the hub."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.local_hub import REPOSITORY, TOKEN, serve
from tests.helpers.tiny_addons import Kits, noise, uri
from worker.engine.engine import Engine
from worker.errors import ModelError
from worker.models.index import ModelIndex
from worker.models.variants import choose_variants, choose_weights
from worker.models.view import show_model

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def rename(folder: Path, variant: str) -> None:
    """Have this variant of a component instead of the plain form."""
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


def split(folder: Path, variant: str | None) -> None:
    """Have the weights in two parts, as large models are published, with their index, under this variant's names."""
    from safetensors.torch import load_file, save_file

    (file,) = folder.glob("*.safetensors")
    weights, dot = load_file(file), f".{variant}" if variant else ""
    parts = [f"{file.stem}{dot}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    homes = {name: parts[number % 2] for number, name in enumerate(weights)}
    for part in parts:
        save_file(
            {name: weights[name] for name, home in homes.items() if home == part}, folder / part, {"format": "pt"}
        )
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / f"{file.stem}.safetensors.index{dot}.json").write_text(json.dumps(index))
    file.unlink()


@pytest.fixture(scope="module")
def plain(kits: Kits) -> Image.Image:
    return picture(load_engine(MODEL_NAME=str(kits["sd1"].model)))


# Way -> component -> the variant that is there instead of the plain form, and whether it is in parts.
WAYS: dict[str, dict[str, tuple[str | None, bool]]] = {
    "one part": {"unet": ("fp16", False)},
    "all": dict.fromkeys(STEMS, ("fp16", False)),
    "several variants": {"unet": ("bf16", False), "vae": ("fp16", False), "text_encoder": ("fp32", False)},
    "split": {"unet": ("fp16", True), "text_encoder": ("fp16", True)},
    "split beside plain": {"unet": (None, True), "vae": ("fp16", False)},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_draws_the_same_whatever_its_files_are_called(
    way: str, kits: Kits, plain: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(kits["sd1"].model, tmp_path / "model")
    for part, (variant, in_parts) in WAYS[way].items():
        if in_parts:
            split(model / part, variant)
        elif variant:
            rename(model / part, variant)
    with caplog.at_level(logging.INFO, "worker"):
        engine = load_engine(MODEL_NAME=str(model))
    assert_same(picture(engine), plain)
    assert "weights: there are no plain ones" in caplog.text
    assert engine.capabilities.name == "model"


def test_plain_weights_are_taken_where_there_are_some(kits: Kits, plain: Image.Image, tmp_path: Path) -> None:
    """The variants here are another model's, which would draw something else."""
    model = shutil.copytree(kits["sd1"].model, tmp_path / "model")
    weights = "diffusion_pytorch_model.fp16.safetensors"
    other = model / "unet" / weights
    shutil.copy(kits["sd1"].model / "unet" / "diffusion_pytorch_model.safetensors", other)
    _change(other)
    rename(model / "vae", "fp16")
    assert_same(picture(load_engine(MODEL_NAME=str(model))), plain)

    chosen = picture(load_engine(MODEL_NAME=str(model), MODEL_VARIANT="fp16"))
    assert chosen.tobytes() != plain.tobytes(), "MODEL_VARIANT decides when it is set"


def _change(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: weight * 1.1 for name, weight in load_file(file).items()}, file, {"format": "pt"})


def test_what_stands_beside_the_model_may_be_a_variant_too(kits: Kits, tmp_path: Path) -> None:
    kit = kits["sd1"]
    net = shutil.copytree(kit.controlnets["edges"], tmp_path / "edges")
    encoder = shutil.copytree(kit.image_encoder, tmp_path / "encoder")
    vae = shutil.copytree(kit.model / "vae", tmp_path / "vae")
    for folder in (net, encoder, vae):
        rename(folder, "fp16")
    usual = kit.settings("controlnets", "ip_adapter") | {"VAE_NAME": str(kit.model / "vae")}
    beside = usual | {"CONTROLNETS": f"edges={net}", "IP_ADAPTER_ENCODER": str(encoder), "VAE_NAME": str(vae)}
    job = {"controlnet": {"name": "edges", "image": uri(noise(1))}, "ip_adapter": {"image": uri(noise(2))}}
    assert_same(picture(load_engine(**beside), **job), picture(load_engine(**usual), **job))


def test_a_folder_without_any_weights_still_says_so(kits: Kits, tmp_path: Path) -> None:
    model = shutil.copytree(kits["sd1"].model, tmp_path / "model")
    for file in (model / "unet").glob("*.safetensors"):
        file.rename(file.with_name("diffusion_pytorch_model.fp16.bin"))
    with pytest.raises(ModelError, match=r"unet holds no \.safetensors weights; .*\.fp16\.bin can run code"):
        load_engine(MODEL_NAME=str(model))


# From the hub.

PAGE = f"https://huggingface.co/{REPOSITORY}"


@pytest.fixture(scope="module")
def cache(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the hub's files go. The repository is a model of variants, and holds a ControlNet in a folder."""
    kit, folder = kits["sd1"], tmp_path_factory.mktemp("hub")
    published = shutil.copytree(kit.model, tmp_path_factory.mktemp("published") / "model")
    for part in STEMS:
        rename(published / part, "fp16")
    shutil.copytree(kit.controlnets["depth"], published / "nets" / "depth")
    rename(published / "nets" / "depth", "fp16")
    (published / "README.md").write_text("# not wanted")
    with serve(published) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def told(kits: Kits, cache: Path) -> tuple[Engine, list[str]]:
    """The engine of the repository, and what the log said while it was loaded."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("worker")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return load_engine(MODEL_NAME=f"{PAGE}/tree/main", HF_TOKEN=TOKEN), lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_repository_of_variants_draws_the_same(told: tuple[Engine, list[str]], plain: Image.Image) -> None:
    engine, lines = told
    assert engine.capabilities.name == REPOSITORY
    assert_same(picture(engine), plain)
    assert "unet: fp16 weights: there are no plain ones" in lines


def test_only_what_is_needed_is_fetched(told: tuple[Engine, list[str]], cache: Path) -> None:
    fetched = {path.name for path in cache.glob("models--*/snapshots/*/*")}
    assert fetched == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def test_what_stands_beside_a_model_is_found_by_the_address_of_its_page(kits: Kits, cache: Path) -> None:
    kit = kits["sd1"]
    beside = {
        "VAE_NAME": f"{PAGE}/blob/main/vae/diffusion_pytorch_model.fp16.safetensors?download=true",
        "CONTROLNETS": f"depth={PAGE}/tree/main/nets/depth",
    }
    job = {"controlnet": {"name": "depth", "image": uri(noise(1))}}
    found = load_engine(MODEL_NAME=str(kit.model), HF_TOKEN=TOKEN, **beside)
    assert_same(picture(found, **job), picture(load_engine(**kit.settings("controlnets")), **job))


def test_a_vae_of_a_whole_model_may_be_a_variant(kits: Kits, cache: Path, plain: Image.Image) -> None:
    assert_same(picture(load_engine(MODEL_NAME=str(kits["sd1"].model), HF_TOKEN=TOKEN, VAE_NAME=PAGE)), plain)


def test_a_folder_that_is_not_there_is_named(kits: Kits, cache: Path) -> None:
    words = f"CONTROLNETS: net: {REPOSITORY} has no nets/config.json at revision main"
    with pytest.raises(ModelError, match=words):
        load_engine(MODEL_NAME=str(kits["sd1"].model), HF_TOKEN=TOKEN, CONTROLNETS=f"net={PAGE}/tree/main/nets")


# The rule, over all names that such files have.

parts = st.sampled_from(["", "-00001-of-00002"])
variants = st.sampled_from([None, "fp16", "bf16", "fp32", "non_ema", "int8"])
stems = st.sampled_from(sorted({*STEMS.values()}))


@given(
    stem=stems,
    there=st.sets(variants, min_size=1),
    wanted=variants,
    split_up=st.booleans(),
    legacy=st.booleans(),
    noise_files=st.sets(st.sampled_from(["config.json", "sdxl.vae.safetensors", "pytorch_model.bin", "model.onnx"])),
)
def test_one_whole_variant_is_taken_and_the_right_one(
    stem: str, there: set[str | None], wanted: str | None, split_up: bool, legacy: bool, noise_files: set[str]
) -> None:
    def names(variant: str | None) -> set[str]:
        dot = f".{variant}" if variant else ""
        if not split_up:
            return {f"{stem}{dot}.safetensors"}
        numbers = [f"-0000{number}-of-00002" for number in (1, 2)]
        shards = {
            f"{stem}{number}{dot}.safetensors" if legacy else f"{stem}{dot}{number}.safetensors" for number in numbers
        }
        index = f"{stem}.safetensors{dot}.index.json" if legacy else f"{stem}.safetensors.index{dot}.json"
        return shards | {index}

    chosen = choose_weights(set().union(noise_files, *map(names, there)), wanted)

    expected = next(one for one in (wanted, None, "fp16", "bf16", "fp32", *sorted(filter(None, there))) if one in there)
    assert chosen.variant == expected
    assert set(chosen.names) == names(expected)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(STEMS)), variants, min_size=1))
def test_each_part_is_looked_at_by_itself(tmp_path: Path, forms: dict[str, str | None]) -> None:
    root = tmp_path / "model"
    shutil.rmtree(root, ignore_errors=True)
    for part, form in forms.items():
        (root / part).mkdir(parents=True)
        (root / part / "config.json").write_text(part)
        (root / part / f"{STEMS[part]}{f'.{form}' if form else ''}.safetensors").write_text(f"{part} {form}")
    (root / "README.md").write_text("# not wanted")
    files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]

    weights = choose_variants(files, forms)
    index = ModelIndex("Pipeline", dict.fromkeys(forms, ("library", "Class")), frozenset(), {})
    with show_model(root, index, weights) as view:
        found = {part: (view / part / f"{STEMS[part]}.safetensors").read_text() for part in forms}
        assert found == {part: f"{part} {form}" for part, form in forms.items()}
        listed = json.loads((view / "model_index.json").read_text())
        assert listed == {"_class_name": "Pipeline", **{part: ["library", "Class"] for part in forms}}
        assert view.name == "model" and not (view / "README.md").exists()
    assert sorted(files) == sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
