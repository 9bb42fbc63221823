"""A LoRA file -> an adapter of a pipeline's layers, and what of the file has no effect there, counted.

peft keeps the adapters, switches them and scales them; what each computes is ours, so that no library reads the file.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from diffusers.hooks.group_offloading import _is_group_offload_enabled, _maybe_remove_and_reapply_group_offloading

from worker.engine.adapters.lora_factors import count_rows, name_kind
from worker.engine.adapters.lora_file import LoraFile, Parts, find_scale, read_lora
from worker.engine.adapters.lora_products import Pair, make_pair
from worker.engine.adapters.lora_targets import Target, Targets

# What control LoRAs for FLUX hold beside their layers.
_REPLACED = ("norm_q.weight", "norm_k.weight", "norm_added_q.weight", "norm_added_k.weight", "_norm.scale")

# Meanwhile peft changes, for the whole process, what becomes of weights that are made.
_ONE_AT_A_TIME = Lock()

Pairs = dict[str, dict[str, Pair]]  # component -> layer -> what acts beside it


def add_adapter(pipeline: Any, file: Path, key: str, words: Collection[str]) -> tuple[str, ...]:
    """Put the LoRA in this file beside the layers that it is for, as the adapter `key`, active.

    Args:
        words: bundled words of it that the text encoders know.

    Returns:
        what of the file has no effect, for those who use it.

    Raises:
        ValueError: it is no LoRA, or none for this model; says what it is instead.
    """
    lora = read_lora(file)
    with _ONE_AT_A_TIME:
        pairs, notes = _fit(lora, Targets(pipeline))
        for component, found in pairs.items():
            _inject(getattr(pipeline, component), key, found)
    if unknown := [word for word in lora.words if word not in words]:
        named = ", ".join(_quote(word) for word in unknown[:3])
        notes.append(f"{len(unknown)} bundled embeddings are left out: {named}")
    return (*lora.notes, *notes)


def _fit(lora: LoraFile, targets: Targets) -> tuple[Pairs, list[str]]:
    """Every layer's product, checked; nothing of the model is touched."""
    if (replaced := next((name for name in lora.others if name.endswith(_REPLACED)), None)) is not None:
        raise ValueError(f"it would replace {_quote(replaced)}, as control LoRAs do, for all later jobs too")
    whole = {name: parts for name, parts in lora.layers.items() if name_kind(parts)}
    rows: dict[str, int] = {}
    for name, parts in whole.items():
        with _name_errors(name):
            rows[name] = count_rows(parts)
    found = targets.find(rows)
    if not found:
        origin = f"; its header says that it was made for {lora.made_for!r}" if lora.made_for else ""
        raise ValueError(f"none of {_count(lora.layers, 'layer')} is one of this model's{origin}")
    pairs: Pairs = {}
    again: list[str] = []
    for name, places in found.items():
        for target in places:
            layers = pairs.setdefault(target.component, {})
            if target.layer in layers:
                again.append(name)
                continue
            with _name_errors(target.layer):
                layers[target.layer] = _make_pair(lora, whole[name], target, targets)
    notes = _list_notes(lora, whole, found)
    if again:
        count = f"{len(again)} of {len(lora.layers)} layers are"
        notes.append(f"{count} in it under another name too, such as {_quote(again[0])}")
    return pairs, notes


def _make_pair(lora: LoraFile, parts: Parts, target: Target, targets: Targets) -> Pair:
    layer = targets.modules[target.component, target.layer]
    if ("dora_scale" in parts or "magnitude" in parts) and _is_group_offload_enabled(layer):
        raise ValueError("DoRA runs each layer twice, which OFFLOAD=group does not allow")
    scale = partial(find_scale, lora, target.component, target.layer)
    return make_pair(parts, layer, target.rows, scale)


@contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """What is refused inside the `with` is said with the layer's name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_quote(name)} {error}") from error


def _list_notes(lora: LoraFile, whole: Mapping[str, Parts], found: Iterable[str]) -> list[str]:
    """What has no effect."""
    notes, total, known = [], len(lora.layers), set(found)
    if missing := [name for name in whole if name not in known]:
        notes.append(
            f"{len(missing)} of {total} layers have no counterpart in this model, such as {_quote(missing[0])}"
        )
    if broken := [name for name in lora.layers if name not in whole]:
        notes.append(f"{len(broken)} of {total} layers lack a factor of their product, such as {_quote(broken[0])}")
    if lora.others:
        notes.append(f"{_count(lora.others, 'tensor')} cannot be added to weights")
    return notes


def _inject(model: Any, key: str, pairs: Mapping[str, Pair]) -> None:
    """Let peft put its layers around the model's, and these products into them."""
    from peft import LoraConfig, inject_adapter_in_model  # hidden where no LoRA can be named

    config = LoraConfig(r=1, lora_alpha=1, target_modules=list(pairs), init_lora_weights=False)
    names = {f"{name}.lora_A.weight": None for name in pairs}
    inject_adapter_in_model(config, model, key, low_cpu_mem_usage=True, state_dict=names)  # type: ignore[arg-type]
    model._hf_peft_config_loaded = True  # by which diffusers and transformers know that there are adapters
    for name, pair in pairs.items():
        layer = model.get_submodule(name)
        layer.lora_A[key], layer.lora_B[key] = pair.first, pair.second
        layer.r[key], layer.lora_alpha[key] = pair.rank, pair.alpha
        layer.set_scale(key, 1.0)
    _maybe_remove_and_reapply_group_offloading(model)


def _count(names: Iterable[str], what: str) -> str:
    names = list(names)
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''}, such as {_quote(names[0])},"


def _quote(name: str) -> str:
    """A name out of a file: on one line, and no longer than need be."""
    return repr(name if len(name) <= 100 else f"{name[:97]}...")
