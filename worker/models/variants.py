"""Which files of a component are taken: data, and weights, plain or of a variant such as fp16. Knows names only.

A folder may hold the same weights in several number formats, as `model.safetensors` and `model.fp16.safetensors`.
Where there is no plain form of them, the only one there is can be meant.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

log = logging.getLogger("worker")

_STEM = r"(?:diffusion_pytorch_model|model)"
_SHARD = r"-\d{5}-of-\d{5}"
_WEIGHTS = re.compile(rf"({_STEM})(?:{_SHARD})?(?:\.([^.]+?))?(?:{_SHARD})?\.safetensors")
_INDEX = re.compile(rf"({_STEM})(?:\.([^.]+))?\.safetensors(?:\.([^.]+))?\.index(?:\.([^.]+))?\.json")
_DATA = (".json", ".txt", ".model", ".jinja", ".spm", ".bpe", ".tiktoken")  # configs and vocabularies
_NO_DATA = ("adapter_config.json",)  # has transformers read weights of another kind, and perhaps of another repository
_PREFERRED = ("fp16", "bf16", "fp32")  # of several variants without a plain form


@dataclass(frozen=True)
class WeightFiles:
    """The files of one component that are its weights.

    Attributes:
        variant: which they are; None for the plain ones, or if there are none.
        names: the files, with the index of those in several parts.
        others: the variants that there are beside it.
    """

    variant: str | None
    names: tuple[str, ...]
    others: tuple[str, ...] = ()


def choose_weights(names: Iterable[str], wanted: str | None = None) -> WeightFiles:
    """Of the files in a component's folder, the weights to take: the wanted variant, the plain ones, or the others.

    Args:
        wanted: what MODEL_VARIANT says.
    """
    found: dict[str | None, list[str]] = {}
    indices: dict[str | None, list[str]] = {}
    for name in sorted(names):
        if match := _WEIGHTS.fullmatch(name):
            found.setdefault(match[2], []).append(name)
        elif match := _INDEX.fullmatch(name):
            indices.setdefault(next(filter(None, match.groups()[1:]), None), []).append(name)
    if not found:
        return WeightFiles(None, ())
    order = [wanted, None, *_PREFERRED, *sorted(filter(None, found))]
    chosen = next(variant for variant in order if variant in found)
    others = tuple(sorted(name for name in found if name not in (chosen, None)))
    return WeightFiles(chosen, (*found[chosen], *indices.get(chosen, ())), others)


def log_variant(what: str, weights: WeightFiles, wanted: str | None) -> str | None:
    """The variant, told in the log with the reason if there is one."""
    if weights.variant:
        others = f"; there are also {', '.join(weights.others)}" if weights.others else ""
        reason = "MODEL_VARIANT says so" if weights.variant == wanted else f"there are no plain ones{others}"
        log.info("%s: %s weights: %s", what, weights.variant, reason)
    return weights.variant


def choose_variants(
    files: Iterable[str], components: Iterable[str], wanted: str | None = None
) -> dict[str, WeightFiles]:
    """Component -> its weights, of the files below a model's folder.

    Args:
        wanted: what MODEL_VARIANT says.
    """
    inside: dict[str, list[str]] = {component: [] for component in components}
    for file in files:
        component, slash, name = file.partition("/")
        if slash and component in inside:
            inside[component].append(name)
    return {component: choose_weights(names, wanted) for component, names in inside.items()}


def is_weights(name: str) -> bool:
    """Whether a file of a component is weights, of whatever format, or an index of them."""
    return bool(_INDEX.fullmatch(name)) or name.endswith((".safetensors", ".bin", ".msgpack", ".h5", ".onnx", ".pb"))


def is_data(name: str) -> bool:
    """Whether a file of a component is a config or part of a vocabulary."""
    return name.endswith(_DATA) and name not in _NO_DATA and not is_weights(name) and not name.startswith(".")


def plain_name(name: str) -> str:
    """The name that these weights would have if they were no variant; parts keep theirs, because the index has them."""
    if match := _INDEX.fullmatch(name):
        return f"{match[1]}.safetensors.index.json"
    match = None if re.search(_SHARD, name) else _WEIGHTS.fullmatch(name)
    return f"{match[1]}.safetensors" if match else name
