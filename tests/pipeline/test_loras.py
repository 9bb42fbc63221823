"""A LoRA acts as in plain diffusers, for the job that names it only; one that does not fit is named."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import tiny_addons
from tests.helpers.drawing import SMALL, assert_same, bytes_alive, draw, load_engine, picture
from tests.helpers.plain_diffusers import EULER, plain, plainly
from tests.helpers.tiny_addons import FAMILIES, Kits, noise, uri
from worker.api.parse import parse
from worker.engine.adapters import loras
from worker.engine.adapters.lora_file import adapter_name
from worker.engine.drawing import Drawing
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs, generate
from worker.errors import InvalidInputError, ModelError
from worker.plan import make_plan
from worker.request import Lora

UNETS = ("sd1", "sdxl")
FEW = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def equipped(kits: Kits) -> dict[str, Engine]:
    """Family -> an engine with its kit's LoRAs."""
    return {family: load_engine(**kits[family].settings("loras")) for family in FAMILIES}


@pytest.fixture(scope="module")
def plain_ones(kits: Kits) -> dict[str, Any]:
    """Family -> plain diffusers with the same LoRAs loaded."""
    pipelines = {}
    for family in FAMILIES:
        pipelines[family] = plain(kits[family].model)
        for name in ("plain", "wordy"):
            pipelines[family].load_lora_weights(
                kits[family].loras, weight_name=f"{name}.safetensors", adapter_name=name
            )
    return pipelines


def asked(family: str) -> dict[str, Any]:
    """The scheduler that both sides draw with."""
    return EULER if family in UNETS else {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "wanted",
    [
        {"plain": 1.0},
        {"wordy": 0.6},
        {"plain": -0.8},
        {"plain": 0.0},
        {"wordy": 0.5, "plain": -1.5},
        {"plain": 0.7, "wordy": 0.0},
    ],
    ids=lambda wanted: "+".join(f"{name}*{scale:g}" for name, scale in wanted.items()),
)
def test_as_in_plain_diffusers(
    family: str, wanted: dict[str, float], equipped: dict[str, Engine], plain_ones: dict[str, Any]
) -> None:
    pipeline = plain_ones[family]
    pipeline.set_adapters(list(wanted), adapter_weights=list(wanted.values()))
    named = [{"name": name, "scale": scale} for name, scale in wanted.items()]

    assert_same(picture(equipped[family], loras=named, **FEW, **asked(family)), plainly(pipeline, **FEW))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_lora_and_scale_draws_another_picture(family: str, equipped: dict[str, Engine]) -> None:
    """Else the comparison would hold for a worker that hears nothing."""
    engine = equipped[family]
    jobs: list[dict[str, Any]] = [{}, {"lora": "plain"}, {"lora": "plain", "lora_scale": 0.5}]
    jobs += [{"lora": "wordy"}, {"loras": ["plain", "wordy"]}, {"lora": "plain", "lora_scale": -1}]

    assert len({picture(engine, **FEW, **job).tobytes() for job in jobs}) == len(jobs)


@pytest.mark.parametrize("family", UNETS)
def test_image_to_image(family: str, kits: Kits, equipped: dict[str, Engine]) -> None:
    kind = "StableDiffusionXLImg2ImgPipeline" if family == "sdxl" else "StableDiffusionImg2ImgPipeline"
    pipeline = plain(kits[family].model, kind)
    pipeline.load_lora_weights(kits[family].loras, weight_name="wordy.safetensors", adapter_name="wordy")
    pipeline.set_adapters(["wordy"], [0.6])
    given = {"strength": 0.5, "num_inference_steps": 4}

    ours = picture(equipped[family], image=uri(noise(1)), lora="wordy", lora_scale=0.6, **given, **EULER)

    assert_same(ours, plainly(pipeline, image=noise(1), width=None, height=None, **given))


def test_a_file_as_kohyas_scripts_write_it(kits: Kits, tmp_path: Path) -> None:
    tiny_addons.kohya_lora(FAMILIES["sd1"](), tmp_path / "k.safetensors", seed=4)
    pipeline = plain(kits["sd1"].model)
    pipeline.load_lora_weights(tmp_path, weight_name="k.safetensors", adapter_name="k")
    pipeline.set_adapters(["k"], [0.9])
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))

    drawn = picture(engine, lora="k", lora_scale=0.9, **FEW, **EULER)

    assert_same(drawn, plainly(pipeline, **FEW))
    assert drawn != picture(engine, **FEW, **EULER)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_job_draws_as_if_there_had_been_none(family: str, kits: Kits) -> None:
    untouched = picture(load_engine(MODEL_NAME=str(kits[family].model)), **FEW)
    engine = load_engine(**kits[family].settings("loras"))

    for job in ({"lora": "plain"}, {"lora": "wordy"}, {"loras": ["plain", {"name": "wordy", "scale": -2}]}):
        picture(engine, **FEW, **job)
        assert_same(picture(engine, **FEW), untouched)


def test_each_job_has_its_own_scale(equipped: dict[str, Engine]) -> None:
    engine = equipped["sd1"]
    scales = [0.25, 2.0, 0.0, 0.25, -1.0, 2.0]
    drawn = [picture(engine, lora="wordy", lora_scale=scale, **FEW).tobytes() for scale in scales]

    assert (drawn[0], drawn[1]) == (drawn[3], drawn[5])
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("family", ["sd1", "flux"])
def test_a_job_that_fails_in_mid_drawing_leaves_nothing(family: str, equipped: dict[str, Engine]) -> None:
    engine = equipped[family]
    before = picture(engine, **FEW)
    request = parse({"input": {**SMALL, **FEW, "lora": "wordy"}}, engine.capabilities)[0]

    def fail(*_: Any) -> None:
        raise RuntimeError("in mid-drawing")

    with pytest.raises(RuntimeError, match="mid-drawing"):
        list(generate(engine, make_plan(request), fail))

    assert_same(picture(engine, **FEW), before)


def test_a_job_that_nobody_reads_to_its_end_leaves_nothing(equipped: dict[str, Engine]) -> None:
    engine = equipped["sd1"]
    before = picture(engine, **FEW)
    request = parse({"input": {**SMALL, **FEW, "lora": "plain", "num_images": 2}}, engine.capabilities)[0]

    def fail(_: object) -> None:
        raise OSError("nobody reads it")

    with pytest.raises(OSError, match="nobody reads it"):
        (outcome,) = draw_jobs(engine, [Drawing(make_plan(request), lambda *_: None, fail)], lambda error: error)
        raise outcome.error or AssertionError

    assert_same(picture(engine, **FEW), before)


def misfit(kind: str, family: str, folder: Path) -> Path:
    """A whole safetensors file that is no LoRA for this model."""
    file = folder / f"{kind}.safetensors"
    part = "unet" if family in UNETS else "transformer"
    layers = list(tiny_addons.attention(tiny_addons.denoiser(FAMILIES[family]())))
    if kind == "garbage":
        return tiny_addons.write({"something": torch.ones(3), "else.weight": torch.ones(2, 2)}, file)
    if kind == "empty":
        return tiny_addons.write({}, file)
    if kind == "another model's layers":
        return tiny_addons.write(_pair(f"{part}.some_block.9.to_q", 32, 32), file)
    if kind == "layers of another width":
        return tiny_addons.write(
            {k: v for name, *_ in layers for k, v in _pair(f"{part}.{name}", 48, 48).items()}, file
        )
    if kind == "one layer of another width":
        weights: dict[str, torch.Tensor] = {}
        for i, (name, width, height) in enumerate(layers):
            weights |= _pair(f"{part}.{name}", width, 48 if i + 1 == len(layers) else height)
        return tiny_addons.write(weights, file)
    raise ValueError(kind)


def _pair(layer: str, width: int, height: int) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": torch.randn(2, width), f"{layer}.lora_B.weight": torch.randn(height, 2)}


MISFITS = ["garbage", "empty", "another model's layers", "layers of another width", "one layer of another width"]


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_a_lora_that_does_not_fit_is_named_and_leaves_nothing(family: str, kits: Kits, tmp_path: Path) -> None:
    fitting = tiny_addons.lora(FAMILIES[family](), tmp_path / "fitting.safetensors", seed=1, text=True)
    for kind in MISFITS:
        misfit(kind, family, tmp_path)
    engine = load_engine(MODEL_NAME=str(kits[family].model), LORA_DIR=str(tmp_path))
    before = picture(engine, **FEW)
    with_fitting = None

    for kind in MISFITS:
        for wanted in ([kind], [fitting.stem, kind]):
            with pytest.raises(ModelError, match=f"LoRA {kind} does not fit this model: .+") as refusal:
                draw(engine, loras=wanted, **FEW)
            assert "\n" not in str(refusal.value)
            assert_same(picture(engine, **FEW), before)
        again = picture(engine, lora=fitting.stem, **FEW)
        assert_same(again, with_fitting or again)
        with_fitting = again
    assert with_fitting != before
    assert adapters(engine) == {adapter_name("fitting")}


def test_a_flux_lora_that_changes_the_model_itself_is_refused(kits: Kits, tmp_path: Path) -> None:
    """Control LoRAs widen the input and replace norms; diffusers would do so for all later jobs."""
    transformer = FAMILIES["flux"]().transformer
    inputs, outputs = transformer.x_embedder.in_features, transformer.x_embedder.out_features
    tiny_addons.write(_pair("transformer.x_embedder", 2 * inputs, outputs), tmp_path / "wide.safetensors")
    norm = {"transformer.transformer_blocks.0.attn.norm_q.weight": torch.full((16,), 3.0)}
    layer = _pair("transformer.transformer_blocks.0.attn.to_q", 32, 32)
    tiny_addons.write({**layer, **norm}, tmp_path / "norms.safetensors")
    engine = load_engine(MODEL_NAME=str(kits["flux"].model), LORA_DIR=str(tmp_path))
    before = picture(engine, **FEW)

    for name in ("wide", "norms"):
        with pytest.raises(ModelError, match=f"LoRA {name} does not fit this model"):
            draw(engine, lora=name, **FEW)
        assert_same(picture(engine, **FEW), before)


def test_a_lora_is_read_once(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(**kits["sd1"].settings("loras"))
    fetched: list[str] = []
    fetch = engine.loras._files._fetch
    monkeypatch.setattr(engine.loras._files, "_fetch", lambda place: (fetched.append(place), fetch(place))[1])

    for scale in (1.0, 0.5, 1.0):
        picture(engine, lora="plain", lora_scale=scale, **FEW)
    picture(engine, **FEW)
    picture(engine, loras=["plain", "wordy"], **FEW)

    assert [Path(place).stem for place in fetched] == ["plain", "wordy"]


NAMES = ["a.b", "a_2e_b", "a b", "a_b", "style/süß", "日本 v1.5", "keys", "train", "weight", "default", "lora_A", "1"]


def test_any_file_name_is_a_name(kits: Kits, tmp_path: Path) -> None:
    """peft makes a module of each name, where dots, and the names of a module's methods, have a meaning."""
    pipeline = FAMILIES["sd1"]()
    for seed, name in enumerate(NAMES):
        tiny_addons.lora(pipeline, tmp_path / f"{name}.safetensors", seed, text=True)
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))
    before = picture(engine, **FEW)
    assert set(engine.capabilities.loras) == set(NAMES)

    drawn = {name: picture(engine, lora=name, **FEW) for name in NAMES}

    assert len({one.tobytes() for one in drawn.values()}) == len(NAMES), "no two names may be taken for one another"
    for name in reversed(NAMES):
        assert_same(picture(engine, lora=f"{name}.safetensors", **FEW), drawn[name])
    assert_same(picture(engine, **FEW), before)


def test_a_name_is_looked_up_and_never_a_path(equipped: dict[str, Engine]) -> None:
    for name in ("../plain", "plain/../plain", "/etc/passwd", "Plain", "plain.bin", "org/name", "plain\0"):
        with pytest.raises(InvalidInputError, match="this endpoint has no LoRA") as refusal:
            draw(equipped["sd1"], lora=name)
        assert "plain, wordy" in str(refusal.value)


def test_pickles_are_left_out_and_never_read(kits: Kits, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_addons.lora(FAMILIES["sd1"](), tmp_path / "good.safetensors", seed=1)
    markers = [
        tiny_addons.trap(tmp_path / name) for name in ("bad.bin", "bad.pt", "deep/worse.ckpt", "pickle.safetensors")
    ]
    with caplog.at_level(logging.WARNING, "worker"):
        engine = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))

    picture(engine, lora="good", **FEW)

    assert engine.capabilities.loras == ("good",)
    for name in ("bad.bin", "bad.pt", "deep/worse.ckpt", "pickle"):
        assert f"leaving out {name}" in caplog.text
    assert not any(marker.exists() for marker in markers)


def test_a_file_that_became_a_pickle_after_the_start_is_not_read(kits: Kits, tmp_path: Path) -> None:
    file = tiny_addons.lora(FAMILIES["sd1"](), tmp_path / "turned.safetensors", seed=1)
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))
    marker = tiny_addons.trap(file)

    with pytest.raises(ModelError, match=r"turned\.safetensors"):
        draw(engine, lora="turned", **FEW)

    assert not marker.exists()


def adapters(engine: Engine) -> set[str]:
    """The names that peft knows in any part of the model."""
    parts = (engine.pipeline.components.get(name) for name in engine.pipeline._lora_loadable_modules)
    return {name for part in parts for name in getattr(part, "peft_config", {})}


@pytest.fixture
def library(kits: Kits, tmp_path: Path) -> Engine:
    """An engine with eight small LoRAs, each second one for the text encoder too."""
    pipeline = FAMILIES["sd1"]()
    (unet, *_), (text, *_) = (next(tiny_addons.attention(part)) for part in (pipeline.unet, pipeline.text_encoder))
    for i in range(8):
        torch.manual_seed(i)
        weights = _pair(f"unet.{unet}", 32, 32)
        if i % 2 == 0:
            weights |= _pair(f"text_encoder.text_model.{text}", 32, 32)
        tiny_addons.write(weights, tmp_path / f"{i}.safetensors")
    return load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))


def test_the_least_recently_used_goes(library: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loras, "MAX_LORAS", 3)
    first = {name: picture(library, lora=name, **FEW) for name in "012"}
    picture(library, lora="0", **FEW)  # now 1 has waited longest

    picture(library, lora="3", **FEW)
    assert adapters(library) == {adapter_name(name) for name in "023"}

    assert_same(picture(library, lora="1", **FEW), first["1"])
    assert adapters(library) == {adapter_name(name) for name in "031"}


def test_a_job_gets_all_it_names_even_beyond_the_bounds(library: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = picture(library, loras=list("01234"), **FEW)
    monkeypatch.setattr(loras, "MAX_LORAS", 2)
    monkeypatch.setattr(loras, "MAX_LORA_BYTES", 1)

    assert_same(picture(library, loras=list("01234"), **FEW), everything)
    picture(library, lora="7", **FEW)

    assert adapters(library) == {adapter_name("7")}


def test_memory_is_flat_over_many_loads(library: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loras, "MAX_LORAS", 3)
    before = picture(library, **FEW)

    def work(times: int) -> None:
        for i in range(times):  # each has been taken off again when its turn comes
            with library.loras.activate([Lora(str(i % 8), 1.0)]):
                assert len(adapters(library)) <= 3

    work(16)
    held, layers = bytes_alive(), len(list(library.pipeline.unet.modules()))
    work(80)

    assert bytes_alive() <= held
    assert len(list(library.pipeline.unet.modules())) <= layers
    assert_same(picture(library, **FEW), before)
