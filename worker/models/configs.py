"""Can a model work with what its configs say? Each number that decides sizes, counts or noise has bounds; no classes.

A config is data of whoever has published the model. A layer too many a billion times, a size of nothing or a beta that
is no number would else end in memory that runs out, in endless loops, or in a worker that fails at every job.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from worker.errors import ModelError
from worker.models.scheduler_classes import PREDICTIONS

MAX_NUMBER = 10**9  # of entries that no bound is known of
MAX_LAYERS = 1_000  # of one kind, and entries of a list with one for each block
MAX_WIDTH = 10**7  # channels, tokens, positions
MAX_SIDE = 16_384  # pixels or latents
MAX_POSITIONS = 100_000  # of one axis, for each of which a row of numbers is computed; the most published are 1,536
MAX_EMBEDDED_SIDE = 1_024  # patches, for each two of which a row of numbers is computed; the most published are 384
MAX_MERGED = 64  # patches or pictures that a processor makes one of, on a side; mostly 2
MAX_TIMESTEPS = 10_000  # of the training
MAX_DEPTH = 20  # entries in entries

_INFINITE = ("lambda_min_clipped", "time_step_limit")  # may be: no limit
_SPACINGS = "linspace", "leading", "trailing"
_PREDICTED = (*PREDICTIONS, "flow_prediction", "v-prediction", "dsm", "trigflow")


@dataclass(frozen=True)
class _Bound:
    """What an entry may be: a number, or a list of some; null is left to the class, which knows a default.

    Attributes:
        least, most: of each number.
        whole: whether fractions are refused.
        fewest, many: entries of a list; 0 at most where it is no list.
        strict: whether something else than numbers is refused.
    """

    least: float
    most: float
    whole: bool = True
    many: int = MAX_LAYERS
    fewest: int = 0
    strict: bool = True

    def __str__(self) -> str:
        kind = "an integer" if self.whole else "a number"
        count = f"{self.many:,}" if self.many == self.fewest else f"up to {self.many:,}"
        return f"{kind} {self.least:g} to {self.most:,}" + (f", or a list of {count}" if self.many else "")

    def allows(self, value: object) -> bool:
        if isinstance(value, list):
            return self.fewest <= len(value) <= self.many and all(self.allows(one) for one in value)
        if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return value is None or not self.strict
        return self.least <= value <= self.most and (not self.whole or value == int(value))


# Of entries whose names fit several, the first counts.
_BOUNDS = tuple(
    (re.compile(pattern), bound)
    for pattern, bound in {
        r"num_train_timesteps|original_inference_steps": _Bound(1, MAX_TIMESTEPS, many=0),
        r"steps_offset": _Bound(0, MAX_LAYERS, many=0),
        r"solver_order": _Bound(1, 4, many=0),
        r"beta_start|beta_end": _Bound(0, 0.9999, whole=False, many=0),
        r"trained_betas": _Bound(0, 1, whole=False, many=MAX_TIMESTEPS),
        r"sigma_(min|max|data)": _Bound(0, 10**6, whole=False, many=0),
        r"scaling_factor": _Bound(1e-6, 10**6, whole=False, many=0),
        r"image_std": _Bound(1e-3, 10**3, whole=False, strict=False),
        r"sample_size": _Bound(1, MAX_SIDE, fewest=2, many=2),
        r"num_labels": _Bound(0, MAX_TIMESTEPS, many=0, strict=False),
        r"num_hidden_layers": _Bound(1, MAX_LAYERS, many=0),
        r"num_.*layers|.*layers_per_block|num_.*blocks|depths?": _Bound(0, MAX_LAYERS, strict=False),
        r"norm_num_groups|num_attention_heads|hidden_size|vocab_size|patch_size|image_size|max_position_embeddings"
        r"|(in|latent|block_out)_channels": _Bound(1, MAX_WIDTH),
        r"axes_lens": _Bound(1, MAX_POSITIONS),
        r"pos_embed_max_size": _Bound(1, MAX_EMBEDDED_SIDE, many=0),
        r"patch_size_t|temporal_patch_size|(spatial_)?merge_size": _Bound(1, MAX_MERGED, strict=False),
        r"min_pixels": _Bound(1, 2**22, many=0),
        r"height|width|shortest_edge|longest_edge|crop_size|size": _Bound(1, MAX_SIDE, many=0, strict=False),
        r".*(_channels|_dim|_dims|_size|_embeddings|_heads|_groups|_kernel)": _Bound(0, MAX_WIDTH, strict=False),
    }.items()
)
_CHOICES: Mapping[str, tuple[str, ...]] = {"prediction_type": _PREDICTED, "timestep_spacing": _SPACINGS}
_QUANTIZED = ("bitsandbytes",)
# For processors that call edges what is how many pixels a picture is scaled to, at least and at most.
_PIXELS = MappingProxyType({"shortest_edge": _Bound(1, 2**22, many=0), "longest_edge": _Bound(1, 2**25, many=0)})


def check_config(path: Path, config: Mapping[str, Any], counts_pixels: bool = False) -> None:
    """Check what a config says.

    Args:
        path: where it stands, for the message.
        counts_pixels: whether what it calls edges is how many pixels a picture is scaled to.

    Raises:
        ModelError: names the first entry that cannot be, what it is and what is allowed.
    """
    for name, problem in _find_problems(config, 0, counts_pixels):
        raise ModelError(f"{path}: {name}: {problem}")


def _find_problems(config: Mapping[str, Any], depth: int, counts: bool) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if problem := _find_problem(name, value, counts):
            yield name, problem
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping):
                if depth >= MAX_DEPTH:
                    yield name, f"should be nested {MAX_DEPTH} times at most"
                else:
                    yield from ((f"{name}.{inner}", said) for inner, said in _find_problems(part, depth + 1, counts))


def _find_problem(name: str, value: object, counts_pixels: bool) -> str | None:
    if name in _CHOICES and value is not None and value not in _CHOICES[name]:
        return _say(value, f"one of {', '.join(_CHOICES[name])}")
    if name == "quantization_config":
        return _find_quantization(value)
    if name.endswith("attn_implementation") and "/" in str(value):
        return _say(value, "one that is part of the library")
    if name == "transformers_weights":
        return _say(value, "left out; weights are read under their usual names")
    bound = _PIXELS.get(name) if counts_pixels else None
    bound = bound or next((bound for pattern, bound in _BOUNDS if pattern.fullmatch(name)), None)
    if bound is not None and not bound.allows(value):
        return _say(value, str(bound))
    return _find_number(name, value)


def _find_quantization(value: object) -> str | None:
    method = value.get("quant_method") if isinstance(value, Mapping) else value
    if method is None or method in _QUANTIZED:
        return None
    return _say(method, f"quantised with {', '.join(_QUANTIZED)}, or not at all")


def _find_number(name: str, value: object) -> str | None:
    """What is wrong with a number, or one in a list, of which nothing else is known."""
    numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, (int, float))]
    if isinstance(value, list) and len(value) > MAX_TIMESTEPS:
        return f"should hold {MAX_TIMESTEPS} entries at most, and has {len(value)}"
    if any(math.isnan(one) for one in numbers):
        return _say(value, "a number")
    if name not in _INFINITE and any(abs(one) > MAX_NUMBER for one in numbers):
        return _say(value, f"{-MAX_NUMBER:g} to {MAX_NUMBER:g}")
    return None


def _say(came: object, allowed: str) -> str:
    return f"got {repr(came)[:80]}; should be {allowed}"
