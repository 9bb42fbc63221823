"""model_index.json -> which class each component of a model is of. It is data: no key of it becomes an argument."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from worker.errors import ModelError
from worker.models.json_file import read_json

INDEX = "model_index.json"
MAX_COMPONENTS = 50
MAX_NUMBERS = 1_000  # of one entry; as many as there are steps, or layers

_NAME = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
_TOLD = "_class_name"


@dataclass(frozen=True)
class ModelIndex:
    """What a model says of its parts.

    Attributes:
        pipeline: the class of diffusers that draws with them.
        parts: component -> the library and the class that read it.
        absent: components that the class has, and the model has not.
        flags: what else it tells the class: numbers, lists of them, words and yes or no.
    """

    pipeline: str
    parts: Mapping[str, tuple[str, str]]
    absent: frozenset[str]
    flags: Mapping[str, bool | int | float | str | tuple[float, ...]]


def read_model_index(path: Path) -> ModelIndex:
    """What a model_index.json says.

    Raises:
        ModelError: names the first entry that says nothing.
    """
    content = read_json(path)
    pipeline = content.get(_TOLD)
    if not isinstance(pipeline, str) or not _NAME.fullmatch(pipeline):
        raise ModelError(f"{path}: {_TOLD}: got {repr(pipeline)[:80]}; should be the name of a pipeline of diffusers")
    lists = {name: entry for name, entry in content.items() if isinstance(entry, list) and name[:1] != "_"}
    numbers = {name: tuple(entry) for name, entry in lists.items() if _holds_numbers(entry)}
    entries = {name: entry for name, entry in lists.items() if name not in numbers}
    parts = {name: _read_entry(path, name, entry) for name, entry in entries.items() if entry != [None, None]}
    if len(parts) > MAX_COMPONENTS:
        raise ModelError(f"{path} lists {len(parts)} components; should be {MAX_COMPONENTS} at most")
    flags = {name: value for name, value in content.items() if isinstance(value, (bool, int, float, str))}
    absent = frozenset(entries.keys() - parts.keys())
    return ModelIndex(pipeline, MappingProxyType(parts), absent, MappingProxyType({**flags, **numbers}))


def _holds_numbers(entry: list[object]) -> bool:
    """Whether it is an argument of the class, such as the sigmas that it is sampled with, and no component."""
    numbers = [one for one in entry if isinstance(one, (int, float)) and not isinstance(one, bool)]
    return 0 < len(numbers) == len(entry) <= MAX_NUMBERS


def _read_entry(path: Path, name: str, entry: list[object]) -> tuple[str, str]:
    if not _NAME.fullmatch(name):
        raise ModelError(f"{path}: {name[:80]!r}: should be the name of a component")
    texts = [one for one in entry if isinstance(one, str) and _NAME.fullmatch(one)]
    if len(texts) != len(entry) or len(entry) != 2:
        raise ModelError(f"{path}: {name}: got {repr(entry)[:80]}; should be a library and a class, or two nulls")
    return texts[0], texts[1]
