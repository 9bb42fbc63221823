"""A word of textual inversion draws as in plain diffusers where it stands alone, and changes no other prompt."""

import logging
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import drawing, plain_diffusers, tiny_addons
from tests.helpers.drawing import assert_same, load_engine
from tests.helpers.plain_diffusers import EULER, plain
from tests.helpers.tiny_addons import FAMILIES, Kits
from worker.api.parse import parse
from worker.engine.adapters.embeddings import replace_words
from worker.engine.engine import Engine
from worker.engine.prompts.warnings import list_prompt_warnings
from worker.errors import SettingsError

UNETS = ("sd1", "sdxl")
# What the text encoders say is in the first step already.
picture = partial(drawing.picture, num_inference_steps=2)
plainly = partial(plain_diffusers.plainly, num_inference_steps=2)
WORDS = {"wobble": 3, "dot": 1}  # and the vectors of each


@pytest.fixture(scope="module")
def equipped(kits: Kits) -> dict[str, Engine]:
    """Family -> an engine with its kit's words."""
    return {family: load_engine(**kits[family].settings("words")) for family in UNETS}


@pytest.fixture(scope="module")
def untouched(kits: Kits) -> dict[str, Engine]:
    """Family -> the same model without any."""
    return {family: load_engine(MODEL_NAME=str(kits[family].model)) for family in UNETS}


@pytest.fixture(scope="module")
def plain_ones(kits: Kits) -> dict[str, Any]:
    """Family -> plain diffusers that knows the words as <wobble> and <dot>."""
    pipelines = {}
    for family in UNETS:
        pipeline = pipelines[family] = plain(kits[family].model)
        for word in WORDS:
            weights = load_file(f"{kits[family].words}/{word}.safetensors")
            parts = {"clip_l": "", "clip_g": "_2"} if family == "sdxl" else {"emb_params": ""}
            for key, suffix in parts.items():
                pipeline.load_textual_inversion(
                    weights[key],
                    token=f"<{word}>",
                    tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
                    text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
                )
    return pipelines


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize("word", WORDS)
def test_as_in_plain_diffusers(family: str, word: str, equipped: dict[str, Engine], plain_ones: dict[str, Any]) -> None:
    for prompt in ("{}", "a red {} here", r"\({}\), {}.", "{} and\n{}"):
        ours = picture(equipped[family], prompt=prompt.replace("{}", word), **EULER)
        spelled = prompt.replace("{}", f"<{word}>").replace("\\", "")
        assert_same(ours, plainly(plain_ones[family], prompt=spelled))


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize("prompt", ["a Wobble", "WOBBLE, a", "a embedding:wobble", "a Embedding:WOBBLE.pt"])
def test_in_any_case_and_as_comfyui_writes_it(
    family: str, prompt: str, equipped: dict[str, Engine], plain_ones: dict[str, Any]
) -> None:
    spelled = re.sub(r"(embedding:)?wobble(\.pt)?", "<wobble>", prompt, flags=re.IGNORECASE)

    assert_same(picture(equipped[family], prompt=prompt, **EULER), plainly(plain_ones[family], prompt=spelled))


def test_of_two_names_the_one_in_the_same_case_is_meant() -> None:
    words = {"Cat": "<Cat>", "cat": "<cat>"}
    assert [replace_words(text, words) for text in ("Cat", "cat")] == ["<Cat>", "<cat>"]
    assert replace_words("CAT", words) in ("<Cat>", "<cat>")


@pytest.mark.parametrize("family", UNETS)
def test_in_the_negative_prompt(family: str, equipped: dict[str, Engine], plain_ones: dict[str, Any]) -> None:
    ours = picture(equipped[family], negative_prompt="bad wobble", **EULER)

    assert_same(ours, plainly(plain_ones[family], negative_prompt="bad <wobble>"))


@pytest.mark.parametrize("family", UNETS)
def test_a_prompt_without_the_word_draws_as_if_there_were_none(
    family: str, equipped: dict[str, Engine], untouched: dict[str, Engine]
) -> None:
    others = ["a red square", "wobbles", "wobble_", "awobble", "wob ble", "dots and dotted", "", "<dotty>"]
    others += ["(wobbles:1.3) here", "a long prompt of wobbles " * 6]
    for prompt in others:
        assert_same(picture(equipped[family], prompt=prompt), picture(untouched[family], prompt=prompt))


@pytest.mark.parametrize("family", UNETS)
def test_the_word_says_something_else(family: str, equipped: dict[str, Engine], untouched: dict[str, Engine]) -> None:
    for prompt in ("wobble", "dot", "a (wobble:1.4) square", "x " * 60 + "wobble", "x " * 90 + "wobble"):
        assert picture(equipped[family], prompt=prompt) != picture(untouched[family], prompt=prompt)


@pytest.mark.parametrize("family", UNETS)
def test_a_weight_of_one_is_no_weight(family: str, equipped: dict[str, Engine]) -> None:
    """Through our own encoding, which weights and long prompts go, a word is what it is in diffusers'."""
    weighted = picture(equipped[family], prompt="a red (wobble:1.0) here")

    assert_same(weighted, picture(equipped[family], prompt="a red wobble here"))


@pytest.mark.parametrize("family", UNETS)
def test_every_vector_counts_when_the_window_is_nearly_full(
    family: str, equipped: dict[str, Engine], plain_ones: dict[str, Any]
) -> None:
    """75 tokens fit, and a word of three vectors is three of them: what would be cut off goes into a second window."""
    fits, exceeds = "x " * 72 + "wobble", "x " * 73 + "wobble"

    assert_same(
        picture(equipped[family], prompt=fits, **EULER), plainly(plain_ones[family], prompt="x " * 72 + "<wobble>")
    )
    cut = plainly(plain_ones[family], prompt="x " * 73 + "<wobble>")
    assert picture(equipped[family], prompt=exceeds, **EULER) != cut


@pytest.mark.parametrize("family", UNETS)
def test_one_for_other_text_encoders_is_left_out_with_a_word_in_the_log(
    family: str, kits: Kits, tmp_path: Path, caplog: pytest.LogCaptureFixture, untouched: dict[str, Engine]
) -> None:
    wrong: dict[str, dict[str, torch.Tensor]] = {
        "wide": {key: torch.ones(2, 48) for key in ("clip_l", "clip_g", "emb_params")},
        "scalar": {"emb_params": torch.tensor(1.0)},
        "empty": {},
    }
    for word, weights in wrong.items():
        tiny_addons.write(weights, tmp_path / f"{word}.safetensors")
    tiny_addons.embedding(FAMILIES[family](), tmp_path / "good.safetensors", vectors=2)
    if family == "sdxl":
        tiny_addons.embedding(FAMILIES["sd1"](), tmp_path / "sd1.safetensors", vectors=2)
    with caplog.at_level(logging.WARNING, "worker"):
        engine = load_engine(MODEL_NAME=str(kits[family].model), EMBEDDINGS_DIR=str(tmp_path))

    assert engine.words == {"good"}
    for word in [*wrong, *(["sd1"] if family == "sdxl" else [])]:
        assert f"leaving out {word}:" in caplog.text
        assert_same(picture(engine, prompt=f"a {word}"), picture(untouched[family], prompt=f"a {word}"))


TRAINERS: dict[str, list[dict[str, str]]] = {
    "sd1": [{"emb_params": ""}, {"<anything>": ""}, {"clip_l": ""}, {"text_encoders_0": ""}],
    "sdxl": [{"clip_l": "", "clip_g": "_2"}, {"text_encoders_0": "", "text_encoders_1": "_2"}],
}
TRAINED = [(family, names) for family, all_names in TRAINERS.items() for names in all_names]


@pytest.mark.parametrize(("family", "names"), TRAINED, ids=["+".join(names) for _, names in TRAINED])
def test_whatever_a_trainer_calls_the_text_encoders(
    family: str, names: dict[str, str], kits: Kits, tmp_path: Path, plain_ones: dict[str, Any]
) -> None:
    weights = load_file(f"{kits[family].words}/wobble.safetensors")
    vectors = dict(zip(("", "_2"), weights.values(), strict=False))  # clip_g comes after clip_l
    if family == "sdxl":
        vectors = {"": weights["clip_l"], "_2": weights["clip_g"]}
    tiny_addons.write({name: vectors[suffix] for name, suffix in names.items()}, tmp_path / "word.safetensors")
    engine = load_engine(MODEL_NAME=str(kits[family].model), EMBEDDINGS_DIR=str(tmp_path))

    drawn = picture(engine, prompt="a red word", **EULER)

    assert_same(drawn, plainly(plain_ones[family], prompt="a red <wobble>"))
    assert warnings_of(engine, prompt="a red word") == []


def warnings_of(engine: Engine, **fields: Any) -> list[str]:
    """What a job with these fields is told of its prompts."""
    request = parse({"id": "test", "input": {**drawing.SMALL, **fields}}, engine.capabilities)[0]
    return list_prompt_warnings(engine, request)


LEFT_OUT: list[tuple[str, dict[str, torch.Tensor], str]] = [
    ("sd1", {"emb_params": torch.ones(2, 48)}, "its vectors have 48 numbers, and this model's 32"),
    ("sd1", {"emb_params": torch.ones(2, 768)}, "have 768 numbers, as Stable Diffusion 1's do, and this model's 32"),
    ("sd1", {"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 32)}, "Stable Diffusion XL's two"),
    ("sd1", {"<a>": torch.ones(2, 32), "<b>": torch.ones(2, 32)}, "it holds 2 embeddings"),
    ("sd1", {"emb_params": torch.full((2, 32), float("nan"))}, "it holds NaN or infinity"),
    ("sd1", {"emb_params": torch.ones(1_001, 32)}, "it holds no vectors of an embedding, of which one may have 1000"),
    ("sd1", {"lora_unet_x.lora_down.weight": torch.ones(2, 32)}, "it seems to be a LoRA, which LORA_DIR takes"),
    ("sdxl", {"emb_params": torch.ones(2, 32)}, "it has 'emb_params', and this model needs clip_l and clip_g"),
    ("sdxl", {"clip_g": torch.ones(2, 32)}, "it has 'clip_g', and this model needs clip_l and clip_g"),
]


@pytest.mark.parametrize("family", UNETS)
def test_a_prompt_with_one_that_was_left_out_is_told_so(family: str, kits: Kits, tmp_path: Path) -> None:
    cases = {f"word{i}": case[1:] for i, case in enumerate(LEFT_OUT) if case[0] == family}
    for word, (weights, _) in cases.items():
        tiny_addons.write(weights, tmp_path / f"{word}.safetensors")
    tiny_addons.trap(tmp_path / "old.pt")
    tiny_addons.embedding(FAMILIES[family](), tmp_path / "good.safetensors", vectors=1)
    engine = load_engine(MODEL_NAME=str(kits[family].model), EMBEDDINGS_DIR=str(tmp_path))

    for word, reason in [*((word, reason) for word, (_, reason) in cases.items()), ("old", "others can run code")]:
        for where in ("prompt", "negative_prompt"):
            (warning,) = warnings_of(engine, **{where: f"a ({word}:1.2), red"})
            assert warning.startswith(f"{where}: the embedding {word} was left out: ")
            assert reason in warning
            assert str(tmp_path) not in warning
    assert warnings_of(engine, prompt="good, and words that were not left out: golden, word10") == []


def test_the_owners_own_negative_prompt_is_told_no_caller(kits: Kits, tmp_path: Path) -> None:
    tiny_addons.trap(tmp_path / "old.pt")
    negative = "old, [red:blue:0.5]"
    settings = {"EMBEDDINGS_DIR": str(tmp_path), "DEFAULT_NEGATIVE_PROMPT": negative}
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), **settings)

    assert warnings_of(engine) == []
    assert len(warnings_of(engine, negative_prompt=f"a {negative}")) == 2


def test_what_of_a_file_has_no_effect_is_said(kits: Kits, tmp_path: Path) -> None:
    vectors = {"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 32), "clip_l_out": torch.ones(1, 32)}
    tiny_addons.write(vectors, tmp_path / "tok.safetensors")
    engine = load_engine(MODEL_NAME=str(kits["sdxl"].model), EMBEDDINGS_DIR=str(tmp_path))

    assert engine.words == {"tok"}
    assert warnings_of(engine, prompt="a tok") == [
        "prompt: the embedding tok has 1 tensors without effect, such as 'clip_l_out'"
    ]


def test_pickles_are_named_and_never_read(kits: Kits, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["word.pt", "word.bin", "deep/word.pth", "word.safetensors"]
    markers = [tiny_addons.trap(tmp_path / name) for name in names]
    with caplog.at_level(logging.WARNING, "worker"):
        engine = load_engine(MODEL_NAME=str(kits["sd1"].model), EMBEDDINGS_DIR=str(tmp_path))

    picture(engine, prompt="a word, deep/word")

    assert not engine.words
    for name in names:
        assert f"leaving out {name.removesuffix('.safetensors')}" in caplog.text
    assert not any(marker.exists() for marker in markers)


def test_any_file_name_is_a_word(kits: Kits, tmp_path: Path) -> None:
    """Names that contain one another, and letters that mean something to tokenizers and patterns."""
    made, plain_one = FAMILIES["sd1"](), plain(kits["sd1"].model)
    names = ["cat", "my cat", "my cat here", "style/cat", "c++", "v1.5", "Süß", "a|b", "x (1)"]
    for seed, name in enumerate(names):
        file = tiny_addons.embedding(made, tmp_path / f"{name}.safetensors", vectors=1, seed=seed)
        plain_one.load_textual_inversion(load_file(file)["emb_params"], token=f"<{seed}>")
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), EMBEDDINGS_DIR=str(tmp_path))

    for seed, name in enumerate(names):
        assert_same(picture(engine, prompt=f"a {name}, red", **EULER), plainly(plain_one, prompt=f"a <{seed}>, red"))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_model_that_learns_no_words_says_so_at_start(family: str, kits: Kits) -> None:
    with pytest.raises(SettingsError, match=r"EMBEDDINGS_DIR: .* takes no textual inversion"):
        load_engine(MODEL_NAME=str(kits[family].model), EMBEDDINGS_DIR=str(kits["sd1"].words))
