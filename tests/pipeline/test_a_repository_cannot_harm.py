"""A model's repository may hold anything: it draws, or the worker says at start what keeps it from that.

Whatever lies in it, on whatever way it is loaded, no pickle is opened, and no key of it becomes an argument.
"""

import json
import logging
import os
import pickle
import resource
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.helpers import tiny_models
from tests.helpers.drawing import draw, load_engine
from tests.helpers.local_hub import REPOSITORY, TOKEN, serve
from tests.helpers.original_names import unet_weights, vae_weights
from tests.helpers.tiny_addons import Kits, noise, uri, write
from worker.engine.load import checkpoint, single_file
from worker.errors import ModelError
from worker.models.locate import find_model
from worker.runtime.worker import Worker
from worker.settings import Settings

UNET, VAE, TEXT = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"
NAN = float("nan")
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1, with a safety checker."""
    return tiny_models.save(tiny_models.sd1(safety_checker=True), tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "copy")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """What a worker with these settings says instead of starting: code and message; empty if it starts."""
    log = logging.getLogger("worker")
    before = list(log.handlers), log.level, log.propagate
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def begin(**environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        failure = Worker().failure
        return "" if failure is None else f"{failure.code}: {failure}"

    yield begin
    log.handlers, log.level, log.propagate = before


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def entries(file: str, **changes: Any) -> Change:
    return lambda model: edit(model / file, **changes)


def rules(**changes: Any) -> Change:
    return entries("tokenizer/tokenizer.json", **changes)


def scheduler(kind: str, **changes: Any) -> Change:
    def change(model: Path) -> None:
        edit(model / "model_index.json", scheduler=["diffusers", kind])
        config = {"_class_name": kind, **tiny_models.BETAS, **changes}
        (model / "scheduler/scheduler_config.json").write_text(json.dumps(config))

    return change


def filled(weights: str, number: float) -> Change:
    """Every weight of a component is this number."""

    def change(model: Path) -> None:
        path = model / f"{weights}.safetensors"
        save_file({name: torch.full_like(one, number) for name, one in load_file(path).items()}, path, {"format": "pt"})

    return change


def header(weights: str, **entry: Any) -> Change:
    """The first tensor's entry in the file's header says something else."""

    def change(model: Path) -> None:
        path = model / f"{weights}.safetensors"
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        told = json.loads(content[8 : 8 + length])
        told[next(name for name in told if name != "__metadata__")] |= entry
        new = json.dumps(told).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])

    return change


INDEX, UNET_CONFIG, TEXT_CONFIG = "model_index.json", "unet/config.json", "text_encoder/config.json"
SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
# What was done to the model -> how, and what the line must say.
BROKEN: dict[str, tuple[Change, str]] = {
    "no UNet": (entries(INDEX, unet=[None, None]), "model_index.json: unet: got null"),
    "no tokenizer": (entries(INDEX, tokenizer=[None, None]), "tokenizer: got null"),
    "a module of Python": (entries(INDEX, unet=["os", "system"]), "unet: got os.system; should be a model"),
    "a pipeline in a pipeline": (entries(INDEX, unet=["diffusers", "StableDiffusionPipeline"]), "unet: got diffusers."),
    "a tokenizer that encodes": (entries(INDEX, text_encoder=["transformers", "CLIPTokenizer"]), "cannot draw"),
    "another family": (entries(INDEX, _class_name="StableDiffusionXLPipeline"), "copy"),
    "a name too long": (entries(INDEX, **{"k" * 5000: ["diffusers", "UNet2DConditionModel"]}), "name of a component"),
    "escapes in a name": (entries(INDEX, **{"x\x1b[31m\nERROR": ["a", "b"]}), r"'x\x1b[31m\nERROR'"),
    "nesting": (lambda model: (model / INDEX).write_text("[" * 200_000), "cannot be read as JSON"),
    "a size of nothing": (entries(UNET_CONFIG, sample_size=-8), "unet/config.json: sample_size: got -8; should be"),
    "groups that do not divide": (entries(UNET_CONFIG, norm_num_groups=3), "unet: num_channels"),
    "layers": (entries(UNET_CONFIG, layers_per_block=10**9), "layers_per_block: got 1000000000"),
    "an epsilon": (entries(UNET_CONFIG, norm_eps=-1.0), "NaN"),
    "a library's own check": (entries(TEXT_CONFIG, num_attention_heads=3), "text_encoder: "),
    "kernels": (entries(TEXT_CONFIG, _attn_implementation="org/kernels"), "_attn_implementation: got 'org/kernels'"),
    "a missing library": (entries(TEXT_CONFIG, _attn_implementation="flash_attention_2"), "text_encoder: "),
    "quantised": (entries(TEXT_CONFIG, quantization_config={"quant_method": "hqq"}), "quantization_config: got 'hqq'"),
    "betas": (entries("scheduler/scheduler_config.json", beta_end=NAN), "beta_end: got nan"),
    "no noise": (entries("scheduler/scheduler_config.json", beta_start=0.0, beta_end=0.0), "NaN"),
    "a prediction": (entries("scheduler/scheduler_config.json", prediction_type="evil"), "prediction_type: got 'evil'"),
    "interpolation": (scheduler("EulerDiscreteScheduler", interpolation_type="evil"), "cannot draw"),
    "a division by zero": (scheduler("LCMScheduler", original_inference_steps=0), "original_inference_steps: got 0"),
    "half a scheduler": (
        lambda model: (model / "scheduler/scheduler_config.json").unlink(),
        "no scheduler_config.json",
    ),
    "a regular expression": (rules(pre_tokenizer=SPLIT), "tokenizer.json: pre_tokenizer: got the regular expression"),
    "a tokenizer of no words": (rules(model={"type": "BPE", "vocab": {}, "merges": []}), "copy"),
    "an unknown tokenizer": (rules(model={"type": "Evil"}), "tokenizer: "),
    "tokens of nobody": (
        entries("tokenizer/tokenizer_config.json", pad_token="zzz"),
        "token 'zzz' of number 190",
    ),
    "no length": (entries("tokenizer/tokenizer_config.json", model_max_length=0), "model_max_length: got 0"),
    "endless length": (entries("tokenizer/tokenizer_config.json", model_max_length=10**30), "cannot draw"),
    "a crop": (entries("feature_extractor/preprocessor_config.json", crop_size=10**9), "crop_size: got 1000000000"),
    "another crop": (entries("feature_extractor/preprocessor_config.json", crop_size=16), "cannot draw"),
    "NaN in the UNet": (filled(UNET, NAN), "of unet holds NaN or infinity"),
    "NaN in the text encoder": (filled(TEXT, NAN), "of text_encoder holds NaN or infinity"),
    "NaN in the VAE": (filled(VAE, NAN), "of vae holds NaN or infinity"),
    "a blind safety checker": (filled("safety_checker/model", NAN), "safety_checker holds NaN"),
    "offsets": (header(UNET, data_offsets=[100, 0]), f"{UNET}.safetensors is no safetensors file"),
    "a shape": (header(TEXT, shape=[2**40, 2**40]), f"{TEXT}.safetensors is no safetensors file"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_what_cannot_work_is_said_at_start_in_one_line(damage: str, copy: Path, start: Callable[..., str]) -> None:
    change, words = BROKEN[damage]
    change(copy)

    line = start(MODEL_NAME=str(copy))

    assert line.startswith("MODEL_ERROR: ") and line.isprintable() and len(line) < 1_000
    assert words in line and "copy" in line


# What has no effect on what is drawn, and may be published so.
HARMLESS: dict[str, Change] = {
    "arguments": entries(
        INDEX,
        use_safetensors=[None, None],
        force_download=[None, None],
        trust_remote_code=[None, None],
        device_map=[None, None],
    ),
    "unknown parts": entries(INDEX, evil=[None, None], more=5, _ignore_files=["unet/config.json"]),
    "10,000 tensors that nobody asked for": lambda model: write(
        load_file(model / f"{UNET}.safetensors") | {f"x.{number}": torch.zeros(1) for number in range(10_000)},
        model / f"{UNET}.safetensors",
    ),
    "a code file": lambda model: (model / "unet" / "diffusers.py").write_text("raise SystemExit"),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_what_nobody_asked_for_has_no_effect(change: str, copy: Path, start: Callable[..., str]) -> None:
    HARMLESS[change](copy)
    assert start(MODEL_NAME=str(copy)) == ""


# Pickles.

SEEN: list[str] = []
WATCHED = {"now": False}
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".metadata")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """What Python itself tells of: every class that a pickle names, and every file that is opened."""
    if WATCHED["now"] and (event == "pickle.find_class" or (event == "open" and str(arguments[0]).endswith(PICKLED))):
        SEEN.append(f"{event} {arguments[0]}")


sys.addaudithook(_watch)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Inside `watched`, calls of torch.load, numpy's and pickle, classes that pickles named and their files opened."""

    def count(place: Any, name: str) -> None:
        real = getattr(place, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            if WATCHED["now"]:
                SEEN.append(f"{place.__name__}.{name} {arguments[:1]}")
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, counted)

    for place, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (numpy, "load")):
        count(place, name)
    SEEN.clear()
    return SEEN


@contextmanager
def watched() -> Iterator[None]:
    WATCHED["now"] = True
    try:
        yield
    finally:
        WATCHED["now"] = False


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def litter(folder: Path, mark: Path) -> None:
    """Lay pickles beside whatever is in this folder, under every name that a library looks for."""
    content = pickle.dumps({"weight": Payload(mark)})
    for name in ("diffusion_pytorch_model", "pytorch_model", "model", "adapter_model"):
        for ending in (".bin", ".fp16.bin", ".pt", ".ckpt"):
            (folder / f"{name}{ending}").write_bytes(content)
    (folder / ".metadata").write_bytes(content)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil/x"}))


def littered(folder: Path, mark: Path) -> None:
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        litter(place, mark)


def test_pickles_that_lie_around_are_never_opened(
    kits: Kits, model: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a worker can have, of folders and of single files, with pickles beside every file; and drawn with."""
    kit, mark = kits["sd1"], tmp_path / "mark"
    root = tmp_path / "root"
    whole = shutil.copytree(model, root / "model")
    for path in (kit.loras, kit.image_encoder, *kit.controlnets.values()):
        shutil.copytree(path, root / path.name)
    assert kit.words is not None
    shutil.copytree(kit.words, root / "words")
    shutil.copy(kit.ip_adapter, root / "adapter.safetensors")
    littered(root, mark)
    places = {
        "MODEL_NAME": whole,
        "VAE_NAME": whole / "vae",
        "LORA_DIR": root / kit.loras.name,
        "EMBEDDINGS_DIR": root / "words",
        "IP_ADAPTER": root / "adapter.safetensors",
        "IP_ADAPTER_ENCODER": root / kit.image_encoder.name,
    }
    nets = ",".join(f"{name}={root / path.name}" for name, path in kit.controlnets.items())
    control = {"name": next(iter(kit.controlnets)), "image": uri(noise(1))}
    with watched():
        engine = load_engine(CONTROLNETS=nets, **{name: str(path) for name, path in places.items()})
        draw(engine, controlnet=control, ip_adapter={"image": uri(noise(2))}, loras=["plain"], prompt="a wobble")

    assert engine.capabilities.safety_checker
    assert opened == [] and not mark.exists()
    with watched():
        pickle.loads((root / "model/unet/model.bin").read_bytes())
    assert len(opened) == 3 and mark.is_dir(), "a pickle that is read is seen by each of the three"


def test_pickles_beside_files_of_one_part_are_never_opened(
    folders: dict[str, Path], tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refiner's folder; and a refiner and a VAE in a file each, in the original layout."""
    mark, refiner = tmp_path / "mark", tiny_models.sdxl_refiner()
    folder = tiny_models.save(refiner, tmp_path / "refiner")
    context = "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"
    monkeypatch.setattr(checkpoint, "_REFINER_CONTEXT", (context, 32))
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    shutil.copytree(folder, tmp_path / "configs" / "sdxl-refiner")
    file = write(unet_weights(refiner.unet, "model.diffusion_model."), tmp_path / "files" / "refiner.safetensors")
    vae = write(vae_weights(refiner.vae), tmp_path / "files" / "vae.safetensors")
    littered(tmp_path / "refiner", mark)
    littered(tmp_path / "files", mark)

    for place in (folder, file):
        with watched():
            load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(place), VAE_NAME=str(vae))

    assert opened == [] and not mark.exists()


def index_of_pickles(folder: Path, mark: Path) -> None:
    """The weights are in parts, which an index names, and which are pickles."""
    (file,) = folder.glob("*.safetensors")
    parts = [f"{file.stem}-0000{number}-of-00002.bin" for number in (1, 2)]
    for part in parts:
        (folder / part).write_bytes(pickle.dumps({"weight": Payload(mark)}))
    homes = {name: parts[number % 2] for number, name in enumerate(load_file(file))}
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / f"{file.stem}.safetensors.index.json").write_text(json.dumps(index))
    file.rename(folder / "decoy.safetensors")


def renamed_pickle(folder: Path, mark: Path) -> None:
    """The weights are a pickle with another ending."""
    (file,) = folder.glob("*.safetensors")
    torch.save({"weight": Payload(mark)}, file)


def only_an_adapter(folder: Path, mark: Path) -> None:
    """The weights are told by name, or by an adapter's config, and are a pickle."""
    (file,) = folder.glob("*.safetensors")
    file.rename(folder / "decoy.safetensors")
    litter(folder, mark)
    edit(folder / "config.json", transformers_weights="adapter_model.bin")


WAYS = {"index": index_of_pickles, "renamed": renamed_pickle, "adapter": only_an_adapter}
PARTS = ("unet", "vae", "text_encoder", "safety_checker", "VAE_NAME", "CONTROLNETS", "IP_ADAPTER_ENCODER")


@pytest.mark.parametrize("way", WAYS)
def test_pickles_instead_of_weights_are_refused_unopened(
    way: str, kits: Kits, model: Path, tmp_path: Path, opened: list[str]
) -> None:
    kit, mark = kits["sd1"], tmp_path / "mark"
    for part in PARTS:
        place, given = tmp_path / way / part, {"MODEL_NAME": str(model)}
        source = {
            "VAE_NAME": model / "vae",
            "CONTROLNETS": kit.controlnets["edges"],
            "IP_ADAPTER_ENCODER": kit.image_encoder,
        }
        shutil.copytree(source.get(part, model), place)
        WAYS[way](place if part in source else place / part, mark)
        given |= {"IP_ADAPTER": str(kit.ip_adapter)} if part == "IP_ADAPTER_ENCODER" else {}
        given |= {part: f"edges={place}" if part == "CONTROLNETS" else str(place)} if part in source else {}
        with watched(), pytest.raises(ModelError, match=part):
            load_engine(**{"MODEL_NAME": str(place)} | given if part in source else {"MODEL_NAME": str(place)})
        assert opened == [] and not mark.exists(), part


# From the hub.


@pytest.fixture
def hub_cache(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the files of the hub go, which serves the copy."""
    with serve(copy) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield tmp_path / "cache"


def test_pickles_of_a_repository_are_not_even_fetched(
    copy: Path, hub_cache: Path, tmp_path: Path, opened: list[str]
) -> None:
    edit(copy / INDEX, use_safetensors=[None, None])
    littered(copy, tmp_path / "mark")
    with watched():
        load_engine(MODEL_NAME=REPOSITORY, HF_TOKEN=TOKEN)
    fetched = {path.name for path in hub_cache.rglob("snapshots/*/*/*")}
    assert not {name for name in fetched if name.endswith(PICKLED) or "adapter" in name}

    (copy / f"{UNET}.safetensors").unlink()
    with pytest.raises(ModelError, match=r"unet holds no \.safetensors weights; .* can run code"):
        load_engine(MODEL_NAME=REPOSITORY, HF_TOKEN=TOKEN)
    assert not [line for line in opened if f"{copy}/" not in line], "but for the hub's own, to list them"
    assert not (tmp_path / "mark").exists()


def test_a_repository_is_checked_as_a_folder_is(copy: Path, hub_cache: Path) -> None:
    edit(copy / UNET_CONFIG, layers_per_block=10**9)
    with pytest.raises(ModelError, match="layers_per_block: got 1000000000"):
        load_engine(MODEL_NAME=REPOSITORY, HF_TOKEN=TOKEN)


def test_a_download_that_was_killed_is_gone_on_with(copy: Path, hub_cache: Path) -> None:
    """Killed at any moment, a download leaves some files, each whole, and its list of all."""
    load_engine(MODEL_NAME=REPOSITORY, HF_TOKEN=TOKEN)
    (snapshot,) = (hub_cache / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots").iterdir()
    caches = {"the network volume": hub_cache}
    assert find_model(REPOSITORY, caches=caches).kind == "folder"
    files = [path for path in snapshot.rglob("*") if path.is_file() and "safety" not in str(path)]
    assert len(files) > 8
    for missing in files:
        target = missing.readlink()
        missing.unlink()
        assert find_model(REPOSITORY, caches=caches).kind == "hub", missing.name
        missing.symlink_to(target)
    for path in files[::2]:
        path.unlink()
    load_engine(MODEL_NAME=REPOSITORY, HF_TOKEN=TOKEN)
    assert find_model(REPOSITORY, caches=caches).kind == "folder"


# Memory.


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
@pytest.mark.parametrize("gigabytes", [4, 64])
def test_memory_that_is_too_small_is_said(gigabytes: int, copy: Path, start: Callable[..., str]) -> None:
    """The UNet's file has one tensor more, which takes no room on the disk."""
    path = copy / f"{UNET}.safetensors"
    content, size = path.read_bytes(), gigabytes * 10**9
    (length,) = struct.unpack("<Q", content[:8])
    told = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    told["more"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    new = json.dumps(told).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])
    os.truncate(path, path.stat().st_size + size)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 10**9, limits[1]))
        line = start(MODEL_NAME=str(copy))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert line.startswith(f"MODEL_ERROR: MODEL_NAME: {path}")
    assert f"there is too little memory for its {gigabytes}.0 GB" in line
