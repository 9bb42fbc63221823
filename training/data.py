"""Training data, made by all processor cores while the GPU is busy: many scenes, and several captions for each.

Everything follows from the seed; nothing is stored.
"""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random

import numpy as np
import torch
from torch import Tensor

from training.captions import caption
from training.render import Packed
from training.scenes import pack, realise, sample_spec
from training.tokenizer import build_tokenizer, encode

CHUNK = 5_000
WORDINGS = 4  # captions of one scene


@dataclass(frozen=True)
class Pool:
    """N scenes and their captions.

    Attributes:
        scenes: ready for the renderer.
        tokens: (N, WORDINGS, 77) int16 token ids.
    """

    scenes: Packed
    tokens: Tensor


class PoolMaker:
    """Starts making a pool at once; `ready()` waits for it."""

    def __init__(self, scenes: int) -> None:
        self._executor = ProcessPoolExecutor(max(1, (os.cpu_count() or 2) - 1), get_context("spawn"))
        self._parts: list[Future[tuple[list[np.ndarray], np.ndarray]]] = [
            self._executor.submit(_chunk, seed, min(CHUNK, scenes - seed * CHUNK))
            for seed in range(-(-scenes // CHUNK))
        ]

    def first(self, parts: int = 8) -> Pool:
        """The first chunks alone, for a stage that need not wait for all."""
        return _joined([part.result() for part in self._parts[:parts]])

    def ready(self) -> Pool:
        """All of it."""
        parts = [part.result() for part in self._parts]
        self._executor.shutdown()
        return _joined(parts)


def _chunk(seed: int, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Scenes and captions of one seed, as plain arrays."""
    torch.set_num_threads(1)
    random, tokenizer = Random(1_000_003 * (seed + 1)), build_tokenizer()
    specs = [sample_spec(random) for _ in range(count)]
    packed = pack([realise(spec, random) for spec in specs])
    captions = [caption(spec, random) for spec in specs for _ in range(WORDINGS)]
    arrays = [getattr(packed, name).numpy() for name in packed.__dataclass_fields__]
    return arrays, encode(tokenizer, captions).reshape(count, WORDINGS, -1)


def _joined(parts: list[tuple[list[np.ndarray], np.ndarray]]) -> Pool:
    columns = [np.concatenate(column) for column in zip(*(arrays for arrays, _ in parts), strict=True)]
    tokens = np.concatenate([tokens for _, tokens in parts])
    return Pool(Packed(*(torch.from_numpy(column) for column in columns)), torch.from_numpy(tokens))
