"""A processor is a part like any other: its tokenizer is checked, and it brings no code and no class of its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_editors, tiny_models
from tests.helpers.drawing import load_engine
from worker.errors import ModelError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_editors.qwen_edit(), tmp_path_factory.mktemp("whole") / "model")


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _add_token(rules: dict[str, Any]) -> None:
    rules["added_tokens"].append({**rules["added_tokens"][-1], "id": 90_000, "content": "<|beyond|>"})


def _loop(rules: dict[str, Any]) -> None:
    rules["normalizer"] = {"type": "Replace", "pattern": {"Regex": "((a+)+)+$"}, "content": ""}


def _grow(rules: dict[str, Any]) -> None:
    longer = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000}
    rules["normalizer"] = {"type": "Sequence", "normalizers": [longer] * 4}


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "a token that the encoder does not know": ("processor/tokenizer.json", _add_token, "beyond"),
    "a rule of endless work": ("processor/tokenizer.json", _loop, "normalizer"),
    "rules that make a letter a million millions": ("processor/tokenizer.json", _grow, "normalizer.*as long"),
    "a class from elsewhere": (
        "model_index.json",
        lambda index: index.update(processor=["os", "system"]),
        "processor: got os.system",
    ),
    "a class that is no processor": (
        "model_index.json",
        lambda index: index.update(processor=["transformers", "pipeline"]),
        "processor: got transformers.pipeline",
    ),
    "pictures made endlessly large": (
        "processor/processor_config.json",
        lambda config: config["image_processor"].update(size={"shortest_edge": 10**9, "longest_edge": 10**9}),
        "shortest_edge",
    ),
    "one picture made a million": (
        "processor/processor_config.json",
        lambda config: config["image_processor"].update(temporal_patch_size=10**6),
        "temporal_patch_size",
    ),
    "a million patches made one": (
        "processor/processor_config.json",
        lambda config: config["image_processor"].update(merge_size=10**6),
        "merge_size",
    ),
    "pictures of the sizes that are published": (
        "processor/processor_config.json",
        lambda config: config["image_processor"].update(size={"shortest_edge": 3_136, "longest_edge": 12_845_056}),
        "",
    ),
    "code beside it": (
        "processor/processor_config.json",
        lambda config: config.update(auto_map={"AutoProcessor": "evil.Evil"}),
        "",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_processor_that_cannot_be_is_refused_or_harmless(change: str, whole: Path, tmp_path: Path) -> None:
    file, edit, told = CHANGES[change]
    model = shutil.copytree(whole, tmp_path / "model")
    _edit(model / file, edit)
    marker = tmp_path / "ran"
    (model / "processor" / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: ...\n")

    if told:
        with pytest.raises(ModelError, match=told):
            load_engine(MODEL_NAME=str(model))
    else:
        load_engine(MODEL_NAME=str(model))

    assert not marker.exists()
