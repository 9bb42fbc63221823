"""What a repository says of itself is checked before any library reads it: bounded numbers, plain names, no arguments.

tests/pipeline/test_a_repository_cannot_harm.py has the same with a worker that loads, or refuses to.
"""

import json
import logging
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from worker.errors import ModelError
from worker.models.checks import MAX_SHARDS, MAX_TENSORS, check_file, check_part, read_shards
from worker.models.configs import check_config
from worker.models.index import ModelIndex, read_model_index
from worker.models.json_file import read_json
from worker.models.locate import find_model
from worker.models.tokenizers import check_tokenizer, find_regex_problem
from worker.runtime.logs import log_to_stderr

ROOT = Path(__file__).parents[2]
HERE = Path("folder/config.json")
PUBLISHED = sorted([*ROOT.glob("worker/engine/load/configs/*/*/*.json"), *ROOT.glob("models/shapes/*/*config.json")])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
short = st.text(max_size=8)
flat = scalars | st.lists(scalars, max_size=3)
values = flat | st.dictionaries(short, flat, max_size=2) | st.lists(st.lists(scalars, max_size=2), max_size=2)
in_tmp_path = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(check: Any, *arguments: Any) -> str:
    """The one line, printable whatever it quotes, in which a model is refused."""
    with pytest.raises(ModelError) as refused:
        check(*arguments)
    line = str(refused.value)
    assert line.isprintable() and line
    return line


# Configs.


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: "/".join(path.parts[-3:]))
def test_published_configs_pass(path: Path) -> None:
    check_config(path, read_json(path))


# Entry -> what it can never be.
IMPOSSIBLE: dict[str, list[object]] = {
    "num_train_timesteps": [0, -5, 10**12, 1.5, "x", [1], True],
    "beta_start": [math.nan, math.inf, -0.1, 1.0, 9.0, "x"],
    "beta_end": [math.nan, 1.5],
    "trained_betas": [[math.nan], [2.0], [0.1] * 10**5, "x"],
    "steps_offset": [-1, 10**9],
    "prediction_type": ["evil", 5],
    "timestep_spacing": ["evil"],
    "solver_order": [0, 10**9],
    "scaling_factor": [0, -1, math.nan, 1e-300, "x", [1]],
    "sample_size": [0, -8, "x", [1, 2, 3], [8], 8.5, math.nan, 10**9, [8, "x"]],
    "layers_per_block": [10**9, -1, math.nan, [10**9, 1]],
    "transformer_layers_per_block": [10**9, [1, [10**9]]],
    "num_hidden_layers": [0, -1, 10**9, "x"],
    "num_layers": [10**9],
    "norm_num_groups": [0, -1, "x"],
    "attention_head_dim": [-1, 10**9],
    "block_out_channels": [[16] * 10**5, [-16], "x", [math.nan]],
    "vocab_size": [0, -1, 10**9],
    "hidden_size": [0, -1, 10**9, "x"],
    "num_labels": [10**9, -1],
    "axes_lens": [[10**9, 64, 64], [0], "x"],
    "pos_embed_max_size": [0, 30_000, "x"],
    "temporal_patch_size": [0, 10**6],
    "merge_size": [0, 10**6],
    "image_std": [[0, 0, 0], 0],
    "layer_norm_eps": [math.nan, math.inf, 10**12],
    "anything": [math.nan, -math.inf, [math.nan], 10**12],
    "_attn_implementation": ["org/kernels"],
    "transformers_weights": ["adapter_model.bin", "../other.safetensors", 5],
    "quantization_config": [{"quant_method": "torchao"}, "x"],
}


@pytest.mark.parametrize("entry", IMPOSSIBLE)
def test_an_impossible_entry_is_named_with_what_came_and_what_is_allowed(entry: str) -> None:
    for value in IMPOSSIBLE[entry]:
        for config, name in (({entry: value}, entry), ({"text_config": {entry: value}}, f"text_config.{entry}")):
            line = refusal(check_config, HERE, config)
            assert line.startswith(f"{HERE}: {name}: ")
            assert " should " in line and len(line) < 400


@given(st.dictionaries(st.sampled_from(sorted(IMPOSSIBLE)) | st.text(max_size=12), values, max_size=6))
def test_any_config_passes_or_is_refused_in_one_line(config: dict[str, Any]) -> None:
    try:
        check_config(HERE, config)
    except ModelError as error:
        assert str(error).startswith(f"{HERE}: ") and str(error).isprintable()
    else:
        numbers = [value for value in config.values() if isinstance(value, float)]
        assert not any(map(math.isnan, numbers))


def test_numbers_in_an_index_are_no_components_and_not_many(tmp_path: Path) -> None:
    content = {"_class_name": "Krea2Pipeline", "text_encoder_select_layers": [2, 5, 8], "unet": ["diffusers", "A"]}
    index = read_model_index(index_of(tmp_path, content))

    assert index.flags["text_encoder_select_layers"] == (2, 5, 8)
    assert index.parts == {"unet": ("diffusers", "A")}
    assert "sample_sigmas" in refusal(read_model_index, index_of(tmp_path, content | {"sample_sigmas": [0.5] * 1_001}))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "", "[]", "null", "<html>", "\ud800", "5" * 10_000])
def test_what_is_no_json_object_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert str(path) in refusal(read_json, path)


# model_index.json and the index of weights.


def index_of(folder: Path, content: object) -> Path:
    path = folder / "index.json"
    path.write_text(json.dumps(content))
    return path


@in_tmp_path
@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["_class_name", "unet", "use_safetensors"]), values))
def test_any_index_is_components_by_name_or_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    path = index_of(tmp_path, content)
    try:
        index = read_model_index(path)
    except ModelError as error:
        assert str(path) in str(error) and str(error).isprintable()
        return
    words = [index.pipeline, *index.parts, *(word for entry in index.parts.values() for word in entry)]
    assert all(re.fullmatch(r"[A-Za-z_]\w*", word, re.ASCII) for word in words)
    assert index.parts.keys() | index.absent | index.flags.keys() <= content.keys()


def test_an_index_says_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    content = {"_class_name": "P", "unet": ["diffusers", "U"], "vae": [None, None], "flag": True, "_ignore_files": []}
    expected = ModelIndex("P", {"unet": ("diffusers", "U")}, frozenset({"vae"}), {"_class_name": "P", "flag": True})
    assert read_model_index(index_of(tmp_path, content)) == expected


names = st.text(max_size=12) | st.sampled_from(
    ["a.safetensors", "../a.safetensors", "/a.safetensors", "a.bin", ".", "a\0"]
)


@in_tmp_path
@given(st.dictionaries(st.text(max_size=5), names | scalars, max_size=5) | values, values)
def test_weights_are_only_ever_safetensors_beside_their_index(tmp_path: Path, weights: Any, metadata: Any) -> None:
    path = index_of(tmp_path, {"weight_map": weights, "metadata": metadata})
    try:
        shards = read_shards(path)
    except ModelError as error:
        assert str(path) in str(error) and str(error).isprintable()
    else:
        assert shards and all(name.endswith(".safetensors") and Path(name).name == name for name in shards)


def test_weights_are_in_a_bounded_number_of_files(tmp_path: Path) -> None:
    weights = {f"w{number}": f"{number}.safetensors" for number in range(MAX_SHARDS + 1)}
    path = index_of(tmp_path, {"weight_map": weights, "metadata": {}})
    assert f"got {MAX_SHARDS + 1} files" in refusal(read_shards, path)


def test_a_file_holds_a_bounded_number_of_tensors(tmp_path: Path) -> None:
    tensors = {f"w{number}": np.zeros(1, np.uint8) for number in range(MAX_TENSORS + 1)}
    save_file(tensors, tmp_path / "many.safetensors")
    assert f"holds {MAX_TENSORS + 1} tensors" in refusal(check_file, tmp_path / "many.safetensors")


# Tokenizers.

# As CLIP, Qwen, GPT-4o, DeepSeek and T5 have them.
GOOD = (
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"(?i:'s|'t|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{M}]+(?i:'s|'t|'ll)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+| ?[\p{P}\p{S}]+[\r\n]*|\d(?=(?:\d{3})+\b)",
    r" {2,}",
)
BAD = (
    r"(a+)+$",
    r"(x+x+)+y",
    r"(a|aa)+$",
    r"(a?)*b",
    r"((a)*)*",
    r"(?i:a+)+",
    r"(?:(?:a|b)c)+",
    r"(a{1,5}){2,}",
    r"(.*)(.*)(.*)(.*)x",
    r"a*a*a*a*b",
    r"(a)\1*",
    r"(?<n>a+)\k<n>",
)


@pytest.mark.parametrize("expression", GOOD)
def test_published_expressions_pass(expression: str) -> None:
    assert find_regex_problem(expression) is None


@pytest.mark.parametrize("expression", BAD)
def test_expressions_that_can_take_for_ever_are_refused(expression: str) -> None:
    assert find_regex_problem(expression)


atoms = st.sampled_from(["a", "b", "[ab]", ".", r"\w", "aa"])
often = st.sampled_from(["*", "+", "?", "{2,}", "{1,2}", "{2}"])


def nest(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Some in a row, one of several, or one several times."""
    some = st.lists(inner, min_size=2, max_size=3)
    repeated = st.tuples(inner, often).map(lambda two: f"(?:{two[0]}){two[1]}")
    return some.map("".join) | some.map(lambda parts: f"(?:{'|'.join(parts)})") | repeated


expressions = st.recursive(atoms, nest, max_leaves=6)


@settings(deadline=None)
@given(expressions)
def test_whatever_expression_passes_takes_a_bounded_time(expression: str) -> None:
    """24 letters divided in all ways are 16 million tries, a minute; three loops in each other are some thousand."""
    if find_regex_problem(expression) is None:
        started = time.process_time()
        re.search(f"(?:{expression})!", "a" * 24)
        assert time.process_time() - started < 2


def tokenizer(folder: Path, **entries: Any) -> Path:
    rules = {"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}}, **entries}
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    return folder


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a+)+$"}}]}),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**6}),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 10**6}),
        ("post_processor", {"single": [{}] * 10**5}),
        ("model", {"vocab": {"a": 10**9}}),
        ("model", {"vocab": {"a": -1}}),
        ("model", None),
        ("added_tokens", [{"id": 10**9}]),
        ("added_tokens", [{"id": 1}] * 10**5),
    ],
)
def test_a_tokenizers_rules_are_bounded(entry: str, value: Any, tmp_path: Path) -> None:
    line = refusal(check_tokenizer, tokenizer(tmp_path, **{entry: value}))
    assert line.startswith(str(tmp_path / "tokenizer.json")) and len(line) < 500


def test_the_rules_of_a_processors_tokenizer_are_bounded(tmp_path: Path) -> None:
    tokenizer(tmp_path, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}})

    assert "tokenizer.json: pre_tokenizer" in refusal(check_part, tmp_path, "Qwen2VLProcessor")


def test_a_tokenizer_beside_weights_is_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1)}, tmp_path / "model.safetensors")
    tokenizer(tmp_path, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}})

    assert "tokenizer.json: pre_tokenizer" in refusal(check_part, tmp_path, "Qwen2VLProcessor")


def test_processors_that_count_pixels_have_bounds_of_their_own(tmp_path: Path) -> None:
    config = tmp_path / "preprocessor_config.json"
    config.write_text(json.dumps({"size": {"longest_edge": 16_777_216, "shortest_edge": 65_536}}))  # Qwen3-VL's

    check_part(tmp_path, "Qwen3VLProcessor")
    assert "size.longest_edge" in refusal(check_part, tmp_path, "CLIPImageProcessor")
    for edges in ({"longest_edge": 10**9}, {"shortest_edge": 10**7}):
        config.write_text(json.dumps({"size": edges}))
        assert f"size.{next(iter(edges))}" in refusal(check_part, tmp_path, "Qwen3VLProcessor")


def test_published_tokenizers_pass(tmp_path: Path) -> None:
    for folder in (ROOT / "models/shapes/tokenizer", ROOT / "worker/engine/load/configs/tokenizer"):
        check_tokenizer(folder)
    (tmp_path / "vocab.json").write_text("{}")
    assert "no vocabulary" in refusal(check_tokenizer, tmp_path), "merges.txt has not come yet"


# Names.

odd = st.text(
    st.characters(codec=None) | st.sampled_from("\x1b\n\r\x9b\u202e\u2028/.~:\ud800"), min_size=1, max_size=60
)


@settings(deadline=None)
@given(odd | odd.map(lambda text: f"org/{text}") | odd.map(lambda text: text * 200), st.none() | odd)
def test_any_name_is_a_hub_id_or_is_refused_in_one_line(name: str, revision: str | None) -> None:
    try:
        source = find_model(name, revision, caches={})
    except ModelError as error:
        assert str(error).isprintable()
    else:
        assert source.location.isprintable() and ".." not in (source.revision or "")


def test_no_text_forges_a_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("worker")
    before = list(log.handlers), log.level, log.propagate
    evil = "x\x1b[31m\nERROR  | forged\r\u2028INFO   | too"
    try:
        log_to_stderr()
        log.info("model %s: it is an existing folder", evil)
        try:
            raise ValueError(evil)
        except ValueError:
            log.exception("unexpected failure: %s", evil)
    finally:
        log.handlers, log.level, log.propagate = before
    lines = capsys.readouterr().err.split("\n")
    assert [line for line in lines if line.isprintable()] == lines
    assert [line[:6] for line in lines if line[:1].isalpha()] == ["INFO  ", "ERROR "], "one for each call"


def test_a_failure_quotes_nothing_raw() -> None:
    assert str(ModelError("a\x1b[31m\nERROR | \ud800")) == r"a\x1b[31m\nERROR | \ud800"
