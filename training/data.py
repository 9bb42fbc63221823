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
from transformers import CLIPTokenizer

from training.captions import wording
from training.render import Packed
from training.scenes import Spec, pack, realise, sample_spec
from training.tokenizer import encode

CHUNK = 5_000
WORDINGS = 8  # captions of one scene

Part = tuple[list[np.ndarray], np.ndarray]  # a chunk's packed scenes, field by field, and its token ids


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
    """Starts making a pool at once; `ready()` waits for it. Every process is given the one tokenizer."""

    def __init__(self, scenes: int, tokenizer: CLIPTokenizer, chunk: int = CHUNK, processes: int | None = None) -> None:
        processes = processes or max(1, (os.cpu_count() or 2) - 1)
        self._executor = ProcessPoolExecutor(processes, get_context("spawn"), _start, (tokenizer,))
        self._parts: list[Future[Part]] = [
            self._executor.submit(_chunk, seed, min(chunk, scenes - seed * chunk))
            for seed in range(-(-scenes // chunk))
        ]

    def first(self, parts: int = 8) -> Pool:
        """The first chunks alone, for a stage that need not wait for all."""
        return _joined([part.result() for part in self._parts[:parts]])

    def ready(self) -> Pool:
        """All of it."""
        parts = [part.result() for part in self._parts]
        self._executor.shutdown()
        return _joined(parts)


_given: list[CLIPTokenizer] = []  # in a process of the pool: its tokenizer


def _start(tokenizer: CLIPTokenizer) -> None:
    """Make a process ready to work."""
    torch.set_num_threads(1)
    _given.append(tokenizer)


def _chunk(seed: int, count: int) -> Part:
    """Scenes and captions of one seed, as plain arrays."""
    specs, captions, random = described(seed, count)
    packed = pack([realise(spec, random) for spec in specs])
    arrays = [getattr(packed, name).numpy() for name in packed.__dataclass_fields__]
    return arrays, encode(_given[0], captions).reshape(count, WORDINGS, -1)


def described(seed: int, count: int) -> tuple[list[Spec], list[str], Random]:
    """The specs of one seed, WORDINGS captions for each, and the generator that made them."""
    random = Random(1_000_003 * (seed + 1))
    specs = [sample_spec(random) for _ in range(count)]
    return specs, [wording(spec, random) for spec in specs for _ in range(WORDINGS)], random


def _joined(parts: list[Part]) -> Pool:
    columns = [np.concatenate(column) for column in zip(*(arrays for arrays, _ in parts), strict=True)]
    tokens = np.concatenate([tokens for _, tokens in parts])
    return Pool(Packed(*(torch.from_numpy(column) for column in columns)), torch.from_numpy(tokens))
