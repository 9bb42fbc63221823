"""The one place that calls a denoiser: a UNet or a diffusion transformer.

The boundary is one forward pass. Inside it: what the pipeline hands to the denoiser (the scaled latents, doubled for
guidance; the timestep; embeddings; the residuals of ControlNets) and the prediction that comes back. Outside it: the
scheduler's step, combining the two halves of guidance, ControlNets, text encoders and the VAE. What runs inside may
be anything that computes the same function of the same inputs: the pass as diffusers wrote it, or a graph of it.

A copy of the module would still run this one's weights: each engine builds its own.

Whatever changes that function from outside says so: weights that are moved or cast, adapters that are attached or
taken off.
"""

import functools
from typing import Any

import torch

from worker.engine.denoiser.graphs import Graphs, Work


class DenoiserRunner:
    """Runs one denoiser's forward passes; in place of its `forward` as soon as the runner exists.

    Attributes:
        version: counts what has changed the denoiser; while it stays, the denoiser computes the same function.
        graphs: of the engine; None where every pass runs as it is written.
    """

    def __init__(self, denoiser: torch.nn.Module) -> None:
        """Take the place of the denoiser's forward; to be called before any hook that moves weights is installed."""
        self.version = 0
        self.graphs: Graphs | None = None
        self._attached: dict[str, tuple[object, ...]] = {}
        self._work = Work("denoiser", denoiser, denoiser.forward)

        @functools.wraps(denoiser.forward)  # pipelines and hooks read the signature
        def forward(*inputs: Any, **named: Any) -> Any:
            return self.run(*inputs, **named)

        denoiser.forward = forward

    def run(self, *inputs: Any, **named: Any) -> Any:
        """One forward pass."""
        if self.graphs is None:
            return self._work.forward(*inputs, **named)
        return self.graphs.run(self._work, self.fingerprint, *inputs, **named)

    def begin(self) -> None:
        """Passes of a batch are next: see to it that none is done with weights which are elsewhere by now."""
        if self.graphs is not None:
            self.graphs.check(self._work.module)

    def attach(self, kind: str, *what: object) -> None:
        """Note that these, and no others of their kind, act in the denoiser from now on; none of them: nothing does."""
        self._attached[kind] = what
        self.version += 1

    def invalidate(self) -> None:
        """Note that weights were moved, cast or replaced."""
        self.version += 1
        if self.graphs is not None:
            self.graphs.forget(self._work.module)

    @property
    def fingerprint(self) -> tuple[tuple[str, tuple[object, ...]], ...]:
        """What acts in the denoiser now, such as LoRAs and their scales; equal for equal functions of equal weights."""
        return tuple(sorted((kind, what) for kind, what in self._attached.items() if what))
