"""What of a LoRA file has no effect is counted in the answer; what is no LoRA for this model is refused by its kind."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers import tiny_addons
from tests.helpers.drawing import SMALL, assert_same, bytes_alive, draw, load_engine, picture
from tests.helpers.lora_forms import Maker, list_layers
from tests.helpers.plain_diffusers import EULER, plain, plainly
from tests.helpers.tiny_addons import FAMILIES, Kits
from worker.api.parse import parse
from worker.engine.adapters.loras import LoraFiles, LoraManager
from worker.engine.drawing import Drawing
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs
from worker.engine.recovery import release_exception_memory
from worker.errors import InvalidInputError, ModelError
from worker.plan import make_plan
from worker.request import Lora

FEW = {"num_inference_steps": 2}
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"


@pytest.fixture(scope="module")
def engine(kits: Kits) -> Engine:
    """Stable Diffusion 1."""
    return load_engine(MODEL_NAME=str(kits["sd1"].model))


@pytest.fixture(scope="module")
def good() -> dict[str, Tensor]:
    """A LoRA of all attention layers of its UNet."""
    weights: dict[str, Tensor] = {}
    for name, weight in list_layers(FAMILIES["sd1"]().unet).items():
        if ".to_" in name:
            factors = Maker(1).lora(weight, alpha=None).factors
            for part, spelled in (("lora_down.weight", "lora_A.weight"), ("lora_up.weight", "lora_B.weight")):
                weights[f"unet.{name}.{spelled}"] = factors[part]
    return weights


def load(engine: Engine, folder: Path, weights: dict[str, Tensor], header: dict[str, str] | None = None) -> list[str]:
    """Let a file act for a moment. Returns what is said of it."""
    save_file({name: one.contiguous() for name, one in weights.items()}, folder / "style.safetensors", header)
    files = LoraFiles({"style": str(folder / "style.safetensors")}, Path)
    manager = LoraManager(engine.pipeline, engine.runners[0], files, {})
    try:
        with manager.activate([Lora("style", 1.0)]):
            return manager.list_warnings([Lora("style", 1.0)])
    finally:
        manager._make_room(10**12, ())


def answered(engine: Engine, **fields: Any) -> list[str]:
    """The warnings of a job's answer that come from drawing."""
    request = parse({"id": "test", "input": {**SMALL, **FEW, **fields}}, engine.capabilities)[0]
    drawing = Drawing(make_plan(request), lambda *_: None, lambda _: None)
    (outcome,) = draw_jobs(engine, [drawing], lambda error: error)
    assert outcome.error is None
    return list(outcome.warnings)


def pair(*, inputs: int = 32, outputs: int = 32, rank: int = 2) -> dict[str, Tensor]:
    """The two factors of one layer."""
    return {"lora_down.weight": torch.randn(rank, inputs), "lora_up.weight": torch.randn(outputs, rank)}


def named(name: str, factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Them under a layer's name."""
    return {f"{name}.{part}": factor for part, factor in factors.items()}


UNUSED = [
    ({"unet.some.other.block.to_q": pair()}, "1 of {} layers have no counterpart in this model, such as 'unet.some"),
    ({"lora_te2_text_model_encoder_layers_0_mlp_fc1": pair()}, "1 of {} layers have no counterpart in this model"),
    ({"text_encoders.t5xxl.transformer.block.0": pair()}, "1 of {} layers have no counterpart in this model"),
    ({f"lora_unet_down_blocks_7_to_{i}": pair() for i in range(5)}, "5 of {} layers have no counterpart"),
    ({"unet.conv_norm_out": {"diff": torch.ones(16)}}, "1 of {} layers"),
    ({f"unet.{LAYER}x": {"lora_up.weight": torch.ones(2, 2)}}, "1 of {} layers lack a factor of their product"),
    ({"unet.x": {"diff_b": torch.ones(4)}, "y": {"strange": torch.ones(1)}}, "2 tensors, such as"),
    ({f"lora_unet_{LAYER.replace('.', '_')}": pair()}, "1 of {} layers are in it under another name too"),
    ({"unet.x": {"lora_down.weight_scale": torch.tensor([1])}}, "1 tensor, such as"),
]


@pytest.mark.parametrize(("extra", "expected"), UNUSED)
def test_what_has_no_effect_is_counted(
    extra: dict[str, dict[str, Tensor]], expected: str, engine: Engine, good: dict[str, Tensor], tmp_path: Path
) -> None:
    weights = dict(good)
    for name, factors in extra.items():
        weights |= named(name, factors)
    layers = len([name for name in good if name.endswith("lora_B.weight")])
    layers += 0 if "tensor" in expected else len(extra)

    (warning,) = load(engine, tmp_path, weights)

    assert warning.startswith("LoRA style: ") and expected.format(layers) in warning
    assert "\n" not in warning and len(warning) < 300


def test_a_file_of_which_all_is_used_has_no_warning(engine: Engine, good: dict[str, Tensor], tmp_path: Path) -> None:
    assert load(engine, tmp_path, good) == []


def test_the_answer_says_it_each_time_and_no_other_answer_does(
    kits: Kits, good: dict[str, Tensor], tmp_path: Path
) -> None:
    foreign = named("unet.other.to_q", pair())
    tiny_addons.write({**good, **foreign}, tmp_path / "style.safetensors")
    tiny_addons.write(good, tmp_path / "whole.safetensors")
    offering = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))

    for _ in range(2):
        (warning,) = answered(offering, lora="style")
        assert warning.startswith("LoRA style: 1 of ")
    assert answered(offering, lora="whole") == answered(offering) == []


KINDS = {
    "an IP-Adapter": {"image_proj.proj.weight": torch.ones(2, 2), "ip_adapter.1.to_k_ip.weight": torch.ones(2, 2)},
    "an embedding": {"emb_params": torch.ones(2, 32)},
    "a whole model": {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 2)},
    "a Control-LoRA": {"lora_controlnet": torch.ones(1), "input_blocks.0.0.weight": torch.ones(2, 2)},
    "a ControlNet": {"controlnet_cond_embedding.conv_in.weight": torch.ones(2, 2)},
    "a VAE": {"decoder.mid.attn_1.k.weight": torch.ones(2, 2)},
    "OFT": {"lora_unet_x.oft_blocks": torch.ones(2, 2, 2)},
    "(IA)3": {"lora_unet_x.on_input": torch.ones(1), "lora_unet_x.weight": torch.ones(2)},
    "GLoRA": {"lora_unet_x.a1.weight": torch.ones(2, 2)},
    "is empty": {},
    "holds 2 tensors": {"something": torch.ones(3), "else": torch.ones(2)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_lora_is_refused_as_what_it_is(kind: str, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refusal:
        load(engine, tmp_path, KINDS[kind])

    assert "LoRA style does not fit this model: it holds no layer of a LoRA; " in str(refusal.value)
    assert kind in str(refusal.value)


def test_one_for_another_model_says_for_which_its_header_was_made(engine: Engine, tmp_path: Path) -> None:
    weights = named("lora_unet_double_blocks_0_img_attn_qkv", pair(outputs=96))

    for header, said in (({"ss_base_model_version": "flux1"}, True), ({"ss_base_model_version": "\x1b[31m\n"}, False)):
        with pytest.raises(ModelError, match="none of 1 layer, such as 'lora_unet_double_blocks_0_img_attn_qkv'") as no:
            load(engine, tmp_path, weights, header)
        assert ("made for 'flux1'" in str(no.value)) is said
        assert "\x1b" not in str(no.value)


NAN = {"lora_down.weight": torch.full((2, 32), float("nan")), "lora_up.weight": torch.ones(32, 2)}
WRONG: list[tuple[str, dict[str, Tensor], str]] = [
    ("rank of nothing", {"lora_down.weight": torch.ones(0, 32), "lora_up.weight": torch.ones(32, 0)}, "factors"),
    ("ranks that differ", {**pair(), "lora_up.weight": torch.ones(32, 3)}, "of ranks 3 and 2"),
    ("inputs that differ", pair(inputs=48), "has 32 inputs, it has 48"),
    ("outputs that differ", pair(outputs=48), "has 32 outputs, it has 48"),
    ("a vector", {"lora_down.weight": torch.ones(32), "lora_up.weight": torch.ones(32)}, "factors have the shapes"),
    ("no numbers", NAN, "holds NaN or infinity"),
    ("many outputs", {"lora_down.weight": torch.ones(0, 32), "lora_up.weight": torch.ones(10**12, 0)}, "factors"),
    ("two alphas", {**pair(), "alpha": torch.ones(2)}, "its alpha has the shape 2"),
    ("magnitudes", {**pair(), "dora_scale": torch.ones(48, 1)}, "its magnitudes are 48"),
    ("a matrix of magnitudes", {**pair(), "dora_scale": torch.ones(4, 8)}, "its magnitude has the shape 4 x 8"),
    ("a middle", {**pair(), "lora_mid.weight": torch.ones(2, 5, 1, 1)}, "its middle of shape 2 x 5 x 1 x 1"),
    ("another difference", {"diff": torch.ones(32, 31)}, "has 32 x 32 weights, it has 32 x 31"),
    (
        "LoKr of another size",
        {"lokr_w1": torch.ones(100_000, 10), "lokr_w2": torch.ones(100_000, 10)},
        "has 32 x 32 weights, it has 10000000000 x 100",
    ),
    (
        "LoHa of two sizes",
        {f"hada_w{n}_{side}": torch.ones(2 * int(n) * 16, 2 * int(n) * 16) for n in "12" for side in "ab"},
        "its two products have",
    ),
    (
        "Tucker of many",
        {
            "lokr_w1": torch.ones(4, 4),
            "lokr_t2": torch.ones(1, 100_000, 1, 1),
            "lokr_w2_a": torch.ones(1, 8),
            "lokr_w2_b": torch.ones(100_000, 8),
        },
        "does not fit its factors",
    ),
]


@pytest.mark.parametrize(("factors", "reason"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_factors_that_do_not_fit_are_refused_before_anything_is_computed(
    factors: dict[str, Tensor], reason: str, engine: Engine, tmp_path: Path
) -> None:
    held, layers = bytes_alive(), len(list(engine.pipeline.unet.modules()))

    with pytest.raises(ModelError, match="LoRA style does not fit this model: ") as refusal:
        load(engine, tmp_path, named(f"unet.{LAYER}", factors))

    assert reason in str(refusal.value)
    assert LAYER in str(refusal.value)
    release_exception_memory(refusal.value)
    assert bytes_alive() <= held
    assert len(list(engine.pipeline.unet.modules())) == layers


def test_a_name_that_needs_conversion_is_no_way_around_the_bounds(engine: Engine, tmp_path: Path) -> None:
    large = {"lora_down.weight": torch.ones(0, 32), "lora_up.weight": torch.ones(10**12, 0)}

    with pytest.raises(ModelError, match="more than 20000000 outputs"):
        load(engine, tmp_path, named("lora_unet_input_blocks_1_1_to_q", large))


def test_thousands_of_layers_of_no_use_end_soon(engine: Engine, tmp_path: Path) -> None:
    few = {f"lora_unet_output_blocks_x_{i}.{part}": torch.ones(1, 1) for i in range(1_999) for part in pair()}
    begun = time.monotonic()
    with pytest.raises(ModelError, match="none of 1999 layers"):
        load(engine, tmp_path, few)
    assert time.monotonic() - begun < 60

    with pytest.raises(ModelError, match="it holds more than 5000 layers"):
        load(engine, tmp_path, {f"{i}.diff": torch.ones(1, 1) for i in range(5_001)})


BAD_CONFIGS: list[tuple[Any, str]] = [
    ({"lora_alpha": "many"}, "should be a number"),
    ({"lora_alpha": True}, "should be a number"),
    ({"lora_alpha": 1e300}, "should be a number"),
    ({"alpha_pattern": {"(a+)+$": 2}}, "by an expression, '(a+)+$'"),
    ("[]", "should be a JSON object"),
    ("[" * 100_000, "cannot be read as JSON"),
]


@pytest.mark.parametrize(("config", "reason"), BAD_CONFIGS)
def test_nothing_but_numbers_is_taken_from_a_header(
    config: Any, reason: str, engine: Engine, good: dict[str, Tensor], tmp_path: Path
) -> None:
    if isinstance(config, dict):
        config = json.dumps({f"unet.{entry}": value for entry, value in config.items()})

    with pytest.raises(ModelError) as refusal:
        load(engine, tmp_path, good, {"lora_adapter_metadata": config})

    assert reason in str(refusal.value)


def test_other_entries_of_a_header_have_no_effect(engine: Engine, good: dict[str, Tensor], tmp_path: Path) -> None:
    config = {"target_modules": "((x+x+)+y|.*)", "lora_bias": True, "use_dora": True, "r": 50_000_000, "bias": "all"}
    header = {"lora_adapter_metadata": json.dumps({f"unet.{entry}": value for entry, value in config.items()})}

    assert load(engine, tmp_path, good, header) == []


def test_a_pickle_is_refused_by_name_with_the_reason(kits: Kits, tmp_path: Path) -> None:
    tiny_addons.trap(tmp_path / "style.pt")
    (tmp_path / "page.safetensors").write_text("<html>")
    offering = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))

    for name, reason in (("style", "can run code"), ("style.pt", "can run code"), ("page", "is a web page")):
        with pytest.raises(InvalidInputError, match=f"the LoRA {name} was left out: ") as refusal:
            draw(offering, lora=name, **FEW)
        assert reason in str(refusal.value)
        assert str(tmp_path) not in str(refusal.value)


@pytest.fixture(scope="module")
def bundles(kits: Kits, tmp_path_factory: pytest.TempPathFactory, good: dict[str, Tensor]) -> tuple[Engine, Path]:
    """An engine with LoRAs that bring words with them, as OneTrainer writes them, and their folder."""
    folder, vectors = tmp_path_factory.mktemp("bundles"), torch.randn(3, 32)
    tiny_addons.write({**good, "bundle_emb.tok.emb_params": vectors}, folder / "style.safetensors")
    tiny_addons.write({**good, "bundle_emb.tok.emb_params": -vectors}, folder / "other.safetensors")
    tiny_addons.write({**good, "bundle_emb.tok.emb_params": torch.ones(2, 48)}, folder / "wide.safetensors")
    return load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(folder)), folder


def test_a_bundled_word_acts_for_jobs_with_its_lora(
    bundles: tuple[Engine, Path], kits: Kits, good: dict[str, Tensor], engine: Engine
) -> None:
    ours, folder = bundles
    pipeline = plain(kits["sd1"].model)
    tiny_addons.write(good, folder.parent / "good.safetensors")
    pipeline.load_lora_weights(folder.parent, weight_name="good.safetensors")
    pipeline.load_textual_inversion(load_file(folder / "style.safetensors")["bundle_emb.tok.emb_params"], token="<x>")
    expected = plainly(pipeline, prompt="a <x>, red", **FEW)

    with_word = picture(ours, prompt="a tok, red", lora="style", **FEW, **EULER)

    assert_same(with_word, expected)
    assert with_word != picture(ours, prompt="a tok, red", lora="other", **FEW, **EULER)
    assert_same(picture(ours, prompt="a tok, red", **FEW), picture(engine, prompt="a tok, red", **FEW))
    assert answered(ours, prompt="a tok", lora="style") == []


def test_a_bundled_word_for_other_text_encoders_is_counted(bundles: tuple[Engine, Path]) -> None:
    (warning,) = answered(bundles[0], prompt="a tok", lora="wide")

    assert warning == "LoRA wide: 1 bundled embeddings are left out: 'tok'"


def test_the_log_says_it_once(
    kits: Kits, good: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_addons.write({**good, **named("unet.other.to_q", pair())}, tmp_path / "style.safetensors")
    offering = load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path))
    with caplog.at_level(logging.WARNING, "worker"):
        for _ in range(2):
            picture(offering, lora="style", **FEW)

    assert caplog.text.count("have no counterpart") == 1
