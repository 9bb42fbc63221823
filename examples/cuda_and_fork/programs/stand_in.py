"""NOT CUDA: a stand-in for machines without a GPU, so that process trees and loads can be seen and tested there.

It does what matters here. Initialised in a process, it is unusable in every copy that fork makes of that process, and
says so with torch's own text. A process that was forked before anything was initialised may initialise it.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from PIL import Image
from tqdm import tqdm

REFUSAL = (
    "Cannot re-initialize CUDA in forked subprocess. "
    "To use CUDA with multiprocessing, you must use the 'spawn' start method"
)

_initialised = False
_in_bad_fork = False


def _notice_fork() -> None:
    global _in_bad_fork
    _in_bad_fork = _in_bad_fork or _initialised


os.register_at_fork(after_in_child=_notice_fork)


def use_device() -> None:
    """What every use of CUDA begins with. Raises RuntimeError in a forked copy of a process that has used it."""
    global _initialised
    if _in_bad_fork:
        raise RuntimeError(REFUSAL)
    _initialised = True


class StandInPipeline:
    """Loaded and called like a diffusers pipeline; the picture is one colour."""

    @classmethod
    def from_pretrained(cls, weights: Path) -> Self:
        """As if the weights were read."""
        # diffusers shows this bar. The first in a process makes a lock of multiprocessing, which settles the default
        # start method: whoever sets it later is refused.
        list(tqdm(["unet", "vae"], desc="Loading pipeline components..."))
        return cls()

    def to(self, device: str) -> Self:
        """As if the weights went onto a device."""
        use_device()
        return self

    def __call__(self, prompt: str, **options: Any) -> SimpleNamespace:
        """A small picture that the prompt has no influence on."""
        use_device()
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), "grey")])
